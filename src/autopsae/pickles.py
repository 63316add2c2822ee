"""What a pickle would do, told from its opcodes without doing it.

`torch.load(weights_only=True)` runs no foreign code, but it builds what it is told to: tuples of tuples that take
an age to hash, or an array of zeros that fills the memory.
"""

import io
import pickletools
import zipfile
from struct import Struct

from autopsae.arrays import InputError
from autopsae.words import show

LARGEST = 4 * 2**20
"""Bytes of the pickle of a `torch.save`, whose tensors lie elsewhere: those of SAEs have a few thousand, those of
20,000 tensors under two million.
"""
DEEPEST = 8
"""Tuples in tuples; `torch.save` needs three."""
GREEDY = "bytearray"
"""The one function that PyTorch allows and that takes as much memory as it is told."""
LONGER = ("remain", "to read long4")
"""In pickletools' messages for a part that is longer than the file; PyTorch would ask for as much memory."""
PICKLES_IN_A_ROW = 5
"""Of which files consist that `torch.save` wrote before it wrote archives."""
LOCAL = Struct("<4s5H3L2H")
"""What stands before each member of an archive: mark, version, flags, compression, time, date, checksum, two sizes,
and the lengths of the name and of the extra field, after which its content begins.
"""
SIZES_FOLLOW = 0x08
"""The flag of a member whose sizes stand after its content, in a descriptor."""
IS_UTF8 = 0x800
"""The flag of a member whose name is UTF-8."""
DESCRIPTORS = (Struct("<4s3L"), Struct("<4sL2Q"))
"""Mark, checksum and two sizes; the second is that of archives over 4 GiB."""
IN_ZIP64 = 2**32 - 1
"""Stands in a header instead of a size that is told elsewhere."""


def check_torch_save(
    content: io.BytesIO | io.BufferedReader, where: object, *, most_summed: int | None = None
) -> None:
    """InputError for what `torch.save` does not write: pickles that never end or fill the memory, compressed parts,
    names that stand twice, places that the archive's two lists of members tell differently, and content that is not
    what its checksums say.

    most_summed: bytes of the largest file whose checksums are compared, as that reads it once more; None for any.
    `torch.load` compares none. The checksum of the pickle, which says where the tensors lie, and the places of all
    members are always compared.
    """
    content.seek(0)
    if zipfile.is_zipfile(content):
        _check_archive(content, where, most_summed)
    else:
        content.seek(0)
        _check_pickle(content.read(LARGEST + 1), where)


def _check_archive(content: io.BytesIO | io.BufferedReader, where: object, most_summed: int | None) -> None:
    size = content.seek(0, io.SEEK_END)
    with zipfile.ZipFile(content) as archive:
        members = archive.infolist()
        # What is compressed in such an archive is there to fill the memory.
        if any(m.compress_type != zipfile.ZIP_STORED for m in members) or sum(m.file_size for m in members) > size:
            raise InputError(
                f"{where}: expected a torch.save, whose parts are not compressed, got other ones; save it again"
            )
        if len({member.filename for member in members}) < len(members):
            raise InputError(f"{where}: expected a torch.save, got a name that stands twice in it; save it again")
        moved = _find_misplaced(content, archive)
        if moved is not None:
            raise InputError(
                f"{where}: expected an archive whose headers and directory agree, got others for {show(moved)}: "
                "the file is damaged; get it again"
            )
        summed = most_summed is None or size <= most_summed
        damaged = archive.testzip() if summed else None
        for member in members:
            if member.filename.endswith("/data.pkl") and damaged is None:
                with archive.open(member) as pickled:
                    _check_pickle(pickled.read(LARGEST + 1), where)
    if damaged is not None:
        raise InputError(
            f"{where}: expected the checksums that torch.save wrote, got another in {show(damaged)}: the file is "
            "damaged; get it again"
        )


def _find_misplaced(content: io.BytesIO | io.BufferedReader, archive: zipfile.ZipFile) -> str | None:
    """The first member that does not lie where its own header and the directory at the end say; None if all do.

    The directory says where a member's header is, the header how long it is itself. One flipped bit in that length
    shifts a tensor by some bytes, and `torch.load` gives the numbers from there. So each member, with its header
    and its descriptor, must end where the next begins.
    """
    members = sorted(archive.infolist(), key=lambda member: member.header_offset)
    ends = [*(member.header_offset for member in members[1:]), archive.start_dir]
    wrong = (m.filename for m, end in zip(members, ends, strict=True) if not _lies_there(content, m, end))
    return next(wrong, None)


def _lies_there(content: io.BytesIO | io.BufferedReader, member: zipfile.ZipInfo, end: int) -> bool:
    """Whether a member's header says the same of it as the directory, and the member ends at byte `end`."""
    content.seek(member.header_offset)
    _, _, flags, _, _, _, *told, name, extra = LOCAL.unpack(content.read(LOCAL.size))
    called = content.read(name).decode("utf-8" if flags & IS_UTF8 else "cp437", errors="replace")
    content.seek(extra + member.file_size, io.SEEK_CUR)
    sums = (member.CRC, member.compress_size, member.file_size)
    # Where the sizes follow, the header may have zeros for them.
    others = {IN_ZIP64, 0} if flags & SIZES_FOLLOW else {IN_ZIP64}
    same = all(one == other or one in others for one, other in zip(told, sums, strict=True))
    forms = DESCRIPTORS[max(sums) > IN_ZIP64 :] if flags & SIZES_FOLLOW else ()
    allowed = [form.pack(b"PK\x07\x08", *sums) for form in forms] or [b""]
    after = max(0, min(end - content.tell(), DESCRIPTORS[-1].size + 1))
    return called == member.orig_filename and same and content.tell() <= end and content.read(after) in allowed


def _check_pickle(beginning: bytes, where: object) -> None:
    if reason := why_not(beginning):
        raise InputError(
            f"{where}: expected a few tensors, got a pickle that is not loaded: {reason}; save the tensors alone"
        )


def why_not(beginning: bytes) -> str | None:
    """The reason not to load a file of pickles; None if there is none.

    beginning: `LARGEST` + 1 bytes of it, or all that it has.
    """
    file = io.BytesIO(beginning)
    for _ in range(PICKLES_IN_A_ROW):
        try:
            reason = _why_not_one(file)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
            if file.tell() > LARGEST:
                return f"it is of more than {LARGEST >> 20} MiB"
            if any(words in str(error) for words in LONGER):
                return "a part of it is longer than the file"
            return None  # no pickle: left to PyTorch's own message
        if reason:
            return reason
    return None


def _why_not_one(file: io.BytesIO) -> str | None:
    depths: list[int | None] = []
    """Tuples in tuples, of each object on the unpickler's stack; None where it has a mark."""
    memo: dict[int, int | None] = {}
    for opcode, argument, _ in pickletools.genops(file):
        if isinstance(argument, str) and GREEDY in argument.split(" ")[-1]:
            return f"it makes a {GREEDY}"
        name = opcode.name
        if name == "MARK":
            depths.append(None)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(str(argument))] = depths[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = depths[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            depths.append(memo[int(str(argument))])
        else:
            depth = _take_deepest(depths, opcode) + name.startswith("TUPLE")
            if depth > DEEPEST:
                return f"it has tuples in tuples, more than {DEEPEST} deep"
            depths.extend([depth] * len(opcode.stack_after))
    return None


def _take_deepest(depths: list[int | None], opcode: pickletools.OpcodeInfo) -> int:
    """The deepest of the objects that an opcode takes from the stack, which are removed."""
    before, taken = opcode.stack_before, 0
    count = len(before)
    if pickletools.markobject in before:
        count = before.index(pickletools.markobject)
        while (depth := depths.pop()) is not None:
            taken = max(taken, depth)
    for _ in range(count):
        taken = max(taken, depths.pop() or 0)
    return taken
