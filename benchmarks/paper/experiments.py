"""Which trials each experiment of the paper needs. The order is that in which they run; trials are shared."""

from dataclasses import replace

from benchmarks.paper.trials import Trial
from model.pretexts import Target

VIT, HYBRID, RESNET = "Femto/7", "R8+Femto/8", "R20x0.125"
SIZES = (1_000, 5_000, 20_000, 60_000)
BUDGETS = (60_000, 120_000, 240_000)
POSITIONS = ("1d", "none", "2d", "relative")
TARGETS: tuple[Target, ...] = ("downsized", "pixels")


def sizes(seed: int) -> list[Trial]:
    """Figures 3 and 4: as many steps on 1,000 to 60,000 images."""
    return [Trial(model, images, seed=seed) for model in (VIT, RESNET) for images in SIZES]


def families(seed: int) -> list[Trial]:
    """Figure 5: three families, each with one to four passes over all images."""
    return [Trial(model, seen=seen, seed=seed) for model in (VIT, HYBRID, RESNET) for seen in BUDGETS]


def positions(seed: int) -> list[Trial]:
    """Table 8."""
    return [Trial(VIT if kind == "1d" else f"{VIT}:{kind}", seed=seed) for kind in POSITIONS]


def masked(seed: int) -> list[Trial]:
    """Appendix B.1.2: without labels first, then 1,000 labels; beside it labels alone, by two rates and for longer."""
    return [*_masked(seed, "colour"), _tuned(seed), replace(_tuned(seed), rate=1e-3), Trial(VIT, 1_000, seed=seed)]


def targets(seed: int) -> list[Trial]:
    """The other two targets of appendix B.1.2."""
    return [trial for target in TARGETS for trial in _masked(seed, target)]


def _masked(seed: int, target: Target) -> list[Trial]:
    start = Trial(VIT, seen=240_000, seed=seed, target=target)
    return [start, replace(_tuned(seed), start=start)]


def _tuned(seed: int) -> Trial:
    return Trial(VIT, 1_000, 30_000, seed, rate=3e-4)


def resolution(seed: int) -> list[Trial]:
    """Section 3.2: a model of 28 pixels at 56, as it is and fine-tuned; beside it as many more steps at 28."""
    start = Trial(VIT, seed=seed)
    as_it_is = Trial(VIT, 30_000, 0, seed, 56, start=start)
    return [start, as_it_is, *(replace(as_it_is, seen=30_000, side=side, rate=3e-4) for side in (28, 56))]


EXPERIMENTS = {
    "sizes": sizes,
    "positions": positions,
    "masked": masked,
    "resolution": resolution,
    "families": families,
    "targets": targets,
}


def trials(names: list[str], seeds: int) -> list[Trial]:
    """All trials of these experiments, each once, with what it starts from before it; a seed after the other."""
    wanted = (trial for seed in range(seeds) for name in names for trial in EXPERIMENTS[name](seed))
    return list(dict.fromkeys(each for trial in wanted for each in (*_starts(trial), trial)))


def _starts(trial: Trial) -> list[Trial]:
    return [] if trial.start is None else [*_starts(trial.start), trial.start]
