"""The training loop, a page to read: for record in steps(sae, tokens, config)."""

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import Tokens
from autopsae.sae import kernels
from autopsae.sae.death import Changes, Watch
from autopsae.sae.model import SAE
from autopsae.sae.selection import Selection, Workspace
from autopsae.training.checkpoint import load_checkpoint, save_checkpoint
from autopsae.training.config import Record, TrainConfig
from autopsae.training.data import Place, Shuffled
from autopsae.training.objective import squared_error
from autopsae.training.optimizers import optimizer_for, set_rate


class Diverged(RuntimeError):
    """The loss is no longer finite. The message says at which step; the weights are as they were before it."""


class Training:
    """A training run: iterate for one record per step, stop at any time, save it and resume it bit by bit.

    sae: trained in place, and left in evaluation mode; tokens: raw; step: the number of the next one.
    """

    def __init__(self, sae: SAE, tokens: Tokens, config: TrainConfig) -> None:
        """Raises InputError for a penalty that the SAE cannot have, and as `optimizer_for`."""
        if config.penalty:
            config.penalty.check(sae)
        self.sae, self.config, self.step = sae, config, 0
        self._tokens = tokens
        self._products = getattr(torch, config.products) if config.products else None
        self._workspace = Workspace()
        self._optimizer = optimizer_for(sae, config)
        if config.unit_decoder and sae.W_dec.requires_grad:
            _normalize_rows(sae.W_dec)
        device = sae.W_enc.device
        self._watch = Watch(sae.d_sae, dead_after_tokens=config.dead_after_tokens, device=device)
        self._sum = torch.zeros(sae.d_in, dtype=torch.float64, device=device)
        self._batches = self._shuffled()

    def __iter__(self) -> Iterator[Record]:
        try:
            while self.step < self.config.steps:
                yield self.advance()
        finally:
            self.sae.eval()

    def advance(self) -> Record:
        """One step of training.

        Raises InputError as `Shuffled`, and Diverged where the loss is not finite, before the step is taken.
        """
        sae, config, step = self.sae.train(), self.config, self.step
        y, _ = sae.enter(next(self._batches))
        selection = sae.select(y, products=self._products, workspace=self._workspace)
        y_hat = sae.reconstruct(selection)
        error = loss = squared_error(y, y_hat)
        if config.penalty:
            loss = loss + config.penalty.loss(sae, selection, step)
        if config.revival:
            silent = self._watch.silent(config.revival.dead_after_tokens)
            loss = loss + config.revival.loss(sae, y, y_hat, silent)
        if not torch.isfinite(loss):
            raise Diverged(f"step {step}: the loss is {loss.item()}; lower the learning rate ({config.lr:g})")
        sae.zero_grad()
        loss.backward()
        if config.unit_decoder and sae.W_dec.grad is not None:
            # Adam would otherwise spend its steps on lengths that the normalisation undoes.
            kernels.remove_parallel(sae.W_dec.grad, sae.W_dec.detach())
        if config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(sae.parameters(), config.clip_norm)
        set_rate(self._optimizer, config.rate(step))
        self._optimizer.step()
        if config.unit_decoder and sae.W_dec.requires_grad:
            _normalize_rows(sae.W_dec)
        self.step += 1
        self._sum += y.sum(dim=0, dtype=torch.float64)
        changes = self._watch.see(selection)
        resampled = self._resample(y, y_hat)
        return self._record(y, float(loss.detach()), float(error.detach()), selection, changes, resampled)

    def save(self, path: str | Path) -> None:
        """Write one checkpoint file, whole or not at all: weights, optimizer, who is silent since when, and the
        place in the shuffled stream.
        """
        save_checkpoint(
            path,
            step=self.step,
            config=self.config,
            sae=self.sae,
            optimizer=self._optimizer,
            place=self._batches.place,
            counters=self._counters(),
        )

    def load(self, path: str | Path) -> None:
        """Go on from a checkpoint of the same SAE, tokens and settings, as if there had been no break.

        Raises InputError for a file that is no whole checkpoint, or one of another run.
        """
        self.step, place = load_checkpoint(
            path, config=self.config, sae=self.sae, optimizer=self._optimizer, counters=self._counters()
        )
        self._batches = self._shuffled(place)

    def _shuffled(self, place: Place | None = None) -> Shuffled:
        return Shuffled(
            self._tokens,
            self.config.batch_tokens,
            buffer_tokens=self.config.buffer_tokens,
            seed=self.config.seed,
            dtype=self.sae.W_enc.dtype,
            device=self.sae.W_enc.device,
            place=place,
        )

    def _counters(self) -> dict[str, Tensor]:
        watch = self._watch
        return {"since_positive": watch.since_positive, "since_fired": watch.since_fired, "sum": self._sum}

    def _resample(self, y: Tensor, y_hat: Tensor) -> int:
        """Redraw dead latents where it is time; how many."""
        method = self.config.resampling
        if method is None or not method.due(self.step - 1):
            return 0
        # Seeded by the step, so that a resumed run draws the same.
        generator = torch.Generator().manual_seed(self.config.seed + self.step)
        dead = self._watch.silent(method.dead_after_tokens)
        redrawn = method.apply(self.sae, y.detach(), y_hat.detach(), dead, self._optimizer, generator)
        self._watch.forget(redrawn)
        return len(redrawn)

    def _record(
        self, y: Tensor, loss: float, error: float, selection: Selection, changes: Changes, resampled: int
    ) -> Record:
        spread = float((y - y.mean(dim=0)).square().sum() / len(y))
        tokens = self.step * len(y)
        dead, relu = self._watch.fractions()
        l0, threshold = _l0_and_threshold(selection)
        return Record(
            step=self.step - 1,
            tokens=tokens,
            loss=loss,
            fvu=error / spread if spread > 0 else 0.0,
            l0=l0,
            threshold=threshold,
            bias_captured=self.sae.bias_captured(self._sum / tokens),
            dead=dead,
            relu=relu,
            topk=dead - relu,
            died=changes.died,
            revived_from_relu=changes.revived_from_relu,
            revived_from_topk=changes.revived_from_topk,
            resampled=resampled,
        )


def steps(sae: SAE, tokens: Tokens, config: TrainConfig) -> Iterator[Record]:
    """Train `sae` in place on raw tokens, one record per step. Stop iterating to stop training.

    Raises InputError as `Training` and `Shuffled`, and Diverged where the loss is not finite, before that step.
    """
    yield from Training(sae, tokens, config)


def train(sae: SAE, tokens: Tokens, config: TrainConfig, *, progress: bool = False) -> list[Record]:
    """`steps` to the end: the SAE is trained in place, and its records are returned. Raises as `steps`.

    progress: show a progress bar in the terminal.
    """
    records = steps(sae, tokens, config)
    if progress:
        from rich.progress import track

        return list(track(records, description="training", total=config.steps))
    return list(records)


@torch.no_grad()
def _normalize_rows(W_dec: Float[Tensor, "d_sae d_in"]) -> None:
    W_dec.div_(W_dec.norm(dim=1, keepdim=True).clamp_min(torch.finfo(W_dec.dtype).tiny))


def _l0_and_threshold(selection: Selection) -> tuple[float, float]:
    """(latents that fired per token, the smallest value that fired, averaged over the tokens where any did)."""
    values, pairs = selection.values.detach(), selection.pairs
    fired = values > 0
    smallest = torch.segment_reduce(values.where(fired, torch.inf), "min", lengths=pairs.per_token_counts)
    heard = smallest.isfinite()
    threshold = float(smallest[heard].mean()) if bool(heard.any()) else 0.0
    return float(fired.sum()) / selection.tokens, threshold
