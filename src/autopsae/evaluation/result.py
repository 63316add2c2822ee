"""What an autopsy found: a fate and a cause for each latent, as counts, a table, text and HTML."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from autopsae.diagnosis.finding import Finding
from autopsae.evaluation.advice import advice
from autopsae.evaluation.causes import CAUSES
from autopsae.survival.outlook import DeadForecast, numbers_of_forecast
from autopsae.tables import Result, frame, html_table, save_table

FORMAT = "autopsae-autopsy"

FATES = ("alive", "rare", "always_on", "dead_by_relu", "dead_by_topk")
"""The names of fates, by number."""
_SAID = dict(
    zip(FATES, ("alive", "rare", "always on", "dead, never positive", "dead, never selected"), strict=True)
)

COLUMNS: tuple[str, ...] = ("latent", "fate", "cause", "fired", "rate", "max_pre", "margin", "shift", "signal")
COLUMNS += ("variance_share", "alignment", "tied", "travel", "reachable", "wakes")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Autopsy(Result):
    """An SAE's latents on some tokens. Lengths are in the SAE's units (`SAE.enter`).

    pre = shift + signal about the tokens' centre m, their geometric median: shift = w . (m - b_dec) + b_enc, and
    signal is the standard deviation of w . y over tokens that are not stray.
    """

    sparsity: str
    """The sparsity's name."""
    layer_norm: bool
    """Whether the SAE normalises every token; the centre is then one of normalised tokens."""
    tokens: int
    """Number of tokens."""
    d_in: int
    """Width of the tokens."""
    lr: float
    """Learning rate of the training by which `reachable` is judged."""
    steps: int
    """Steps of that training."""
    rare: float
    """Share of the tokens under which a latent that fires is rare."""
    strays: float
    """Share of tokens of over ten times the median norm."""
    repeated: float
    """Share of the tokens that are the most frequent vector, such as padding."""
    center: Float[Tensor, "d_in"]
    """m, the geometric median of the tokens, in the SAE's units."""
    fired: Int[Tensor, "d_sae"]
    """On how many tokens each latent fired."""
    fate: Int[Tensor, "d_sae"]
    """Numbers in FATES."""
    cause: Int[Tensor, "d_sae"]
    """Numbers in CAUSES."""
    max_pre: Float[Tensor, "d_sae"]
    """Largest pre-activation."""
    margin: Float[Tensor, "d_sae"]
    """Largest difference of the pre-activation and what it has to exceed; negative for the dead."""
    shift: Float[Tensor, "d_sae"]
    """What the tokens' centre adds to each pre-activation."""
    signal: Float[Tensor, "d_sae"]
    """Standard deviation of each pre-activation over tokens that are not stray."""
    variance_share: Float[Tensor, "d_sae"]
    """Variance along the unit row over that along a typical direction."""
    alignment: Float[Tensor, "d_sae"]
    """Cosine of the row and m - b_dec; 0 where one of them is 0."""
    tied: Float[Tensor, "d_sae"]
    """Cosine of encoder and decoder row; 1 at birth."""
    travel: Float[Tensor, "d_sae"]
    """How far some coordinate of b_dec has to move, at least, before the latent is positive: -max_pre / ||w||_1,
    infinite for a row of zeros, and where the encoder subtracts a b_pre instead."""
    wakes: Bool[Tensor, "d_sae"]
    """Dead, and would fire if it were re-centred and everything else stayed as it is (`recentre`)."""
    dead_forecast: DeadForecast | None
    """The fraction of the latents expected dead on more tokens, with its interval; None where at least as many
    tokens were counted."""
    written_by: str
    """The library that wrote the SAE, as `format_of` names it: the advice is a call for it."""
    prescription: str | None
    """Where a prescription is written (`fresh_start`), without suffix, for the advice; None where none is."""

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return len(self.fired)

    @property
    def is_dead(self) -> Bool[Tensor, "d_sae"]:
        """Never fired."""
        return self.fired == 0

    @property
    def reachable(self) -> Bool[Tensor, "d_sae"]:
        """Training at `lr` for `steps` can move b_dec far enough: an Adam step moves a coordinate by about lr."""
        return self.travel <= self.lr * self.steps

    @property
    def fates(self) -> dict[str, int]:
        """Latents by fate, each in one; of those that fired, `alive` are neither rare nor always on."""
        return {name: int((self.fate == number).sum()) for number, name in enumerate(FATES)}

    @property
    def causes(self) -> dict[str, int]:
        """Dead latents by cause, each in one."""
        return {name: int((self.cause == number).sum()) for number, name in enumerate(CAUSES) if number}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What there is to do, cause by cause, where more than 1 % of the latents are concerned."""
        stuck = (self.fate == FATES.index("dead_by_relu")) & ~self.reachable
        return advice(
            self.causes,
            d_sae=self.d_sae,
            tokens=self.tokens,
            wakes=int(self.wakes.sum()),
            stuck=int(stuck.sum()),
            travel=float(self.travel[stuck].median()) if bool(stuck.any()) else None,
            reach=self.lr * self.steps,
            always_on=self.fates["always_on"],
            repeated=self.repeated,
            layer_norm=self.layer_norm,
            written_by=self.written_by,
            prescription=self.prescription,
        )

    def to_dict(self) -> dict[str, Any]:
        """Counts (n_...) and fractions for a JSON file. Here `n_alive` are all that fired, the rare and the
        always on among them; dead = dead_by_relu + dead_by_topk.
        """
        fates, out = self.fates, int((self.is_dead & ~self.reachable).sum())
        recovery = {"lr": self.lr, "steps": self.steps, "reach": self.lr * self.steps, "out_of_reach": out}
        return {
            "format": FORMAT,
            "version": 1,
            "d_sae": self.d_sae,
            "d_in": self.d_in,
            "sparsity": self.sparsity,
            "written_by": self.written_by,
            "tokens": self.tokens,
            "n_alive": int((~self.is_dead).sum()),
            "n_dead": int(self.is_dead.sum()),
            **{f"n_{name}": number for name, number in fates.items() if name != "alive"},
            "dead": float(self.is_dead.double().mean()),
            **{name: fates[name] / self.d_sae for name in ("dead_by_relu", "dead_by_topk")},
            **numbers_of_forecast(self.dead_forecast),
            "causes": self.causes,
            "wake_on_recentring": int(self.wakes.sum()),
            "recovery": recovery,
            "rare_below": self.rare,
            "strays": self.strays,
            "repeated": self.repeated,
            "findings": [{**asdict(finding), "text": str(finding)} for finding in self.findings],
        }

    def columns(self) -> dict[str, list[Any]]:
        """The table: a list for each of COLUMNS, with an entry for each latent."""
        computed: dict[str, list[Any]] = {
            "latent": list(range(self.d_sae)),
            "fate": [FATES[number] for number in self.fate.tolist()],
            "cause": [CAUSES[number] for number in self.cause.tolist()],
            "rate": (self.fired.double() / self.tokens).tolist(),
        }
        return {name: computed[name] if name in computed else getattr(self, name).tolist() for name in COLUMNS}

    def to_frame(self) -> Any:
        """The table as a pandas DataFrame. Raises InputError where pandas is missing."""
        return frame(self.columns())

    def save_table(self, path: str | Path) -> None:
        """Write a row per latent as .csv or .parquet, whole or not at all. Raises InputError as `check_table`."""
        save_table(self.columns(), path)

    def _html_table(self) -> str:
        """How many latents have each fate and each cause of death; what is to be done stands under it."""
        counts = {_SAID[name]: number for name, number in self.fates.items()}
        counts |= {
            f"cause of death: {name.replace('_', ' ')}": number for name, number in self.causes.items() if number
        }
        rows = [(name, f"{number:,}", f"{number / self.d_sae:.1%}") for name, number in counts.items()]
        return html_table(("latents", "number", "share"), rows, [*map(str, self.findings)], [str(self)])

    def __str__(self) -> str:
        dead, fates = int(self.is_dead.sum()), self.fates
        ways = [
            f"{fates[n]:,} {_SAID[n].removeprefix('dead, ')}" for n in ("dead_by_relu", "dead_by_topk") if fates[n]
        ]
        causes = [f"{number:,} {name.replace('_', ' ')}" for name, number in self.causes.items() if number]
        living = [f"{fates[name]:,} {_SAID[name]}" for name in ("rare", "always_on") if fates[name]]
        why = f": {', '.join(ways)}; causes of death: {', '.join(causes)}" if dead else ""
        later = "" if self.dead_forecast is None else f"; {self.dead_forecast}"
        others = f"; of the living, {', '.join(living)}" if living else ""
        share = f"{dead:,} of {self.d_sae:,} latents ({dead / self.d_sae:.1%})"
        return f"{share} are dead on {self.tokens:,} tokens{why}{later}{others}"
