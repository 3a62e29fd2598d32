"""Training learns, keeps its best model, stops when told, and continues after a kill as if nothing had happened."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from shades import RECIPE, shades, tiny_run

from model.augment import Augmentation
from model.checkpoints import native
from model.checkpoints.native import Description
from model.data import LabelledImages, hold_out
from model.training import loop
from model.training.loop import Outputs, train
from model.training.recipe import Recipe
from model.training.run import Run
from model.training.steps import train_epoch
from model.training.validation import confusion, native_top1

DATA = shades()


def train_all(folder: Path, run: Run, validation: LabelledImages = DATA, **options: Any) -> list[dict[str, Any]]:
    outputs = Outputs(folder, Description(DATA.labels, "shades"), **options)
    train(run, DATA, validation, Augmentation(), outputs, Console(quiet=True))
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_it_learns_and_leaves_a_checkpoint_a_log_and_a_confusion_matrix(tmp_path: Path) -> None:
    log = train_all(tmp_path, tiny_run(), tensorboard=True)
    assert [entry["epoch"] for entry in log] == [1, 2, 3, 4]
    best = max(entry["top1"] for entry in log)
    assert best > 0.9
    model, description = native.load(tmp_path / "model.safetensors")
    assert description.labels == ("dark", "bright")
    assert native_top1(model, DATA) == best
    confused = json.loads((tmp_path / "confusion.json").read_text())
    assert sum(map(sum, confused["rows_show_columns_said"])) == len(DATA)
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "events").iterdir()) != []


EVERYTHING = {
    "ema_decay": 0.9, "drop_path": 0.3, "mixup": 0.5, "cutmix": 0.5, "accumulate": 2, "patience": 3,
}  # fmt: skip


@pytest.mark.parametrize(
    "recipe",
    [
        replace(RECIPE, epochs=3),
        replace(RECIPE, epochs=3, optimizer="sgd", weight_decay=0),
        replace(RECIPE, epochs=3, **EVERYTHING),
    ],
    ids=["adamw", "sgd", "everything"],
)
def test_a_killed_run_continues_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe) -> None:
    whole = tiny_run(recipe)
    log = train_all(tmp_path / "whole", whole)

    class Killed(BaseException):
        pass

    def dies(run: Run, *arguments: Any) -> Iterator[float]:
        for loss in train_epoch(run, *arguments):
            yield loss
            if (run.progress.epoch, run.progress.step) == (1, 3):
                raise Killed  # after the state of step 2 was written

    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_epoch", dies)
        with pytest.raises(Killed):
            train_all(tmp_path / "killed", tiny_run(recipe), save_steps=2)
    again = tiny_run(recipe)
    continued = train_all(tmp_path / "killed", again)
    assert [(entry["loss"], entry["top1"]) for entry in continued] == [(entry["loss"], entry["top1"]) for entry in log]
    for left, right in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(left, right)
    for left, right in zip(whole.kept.parameters(), again.kept.parameters(), strict=True):
        assert torch.equal(left, right)


def test_a_line_of_the_log_that_the_state_does_not_know_is_not_kept_twice(tmp_path: Path) -> None:
    train_all(tmp_path, tiny_run(replace(RECIPE, epochs=2)))
    (tmp_path / "log.jsonl").write_text((tmp_path / "log.jsonl").read_text() + '{"epoch": 3, "top1": 0.0}\n')
    assert [entry["epoch"] for entry in train_all(tmp_path, tiny_run(replace(RECIPE, epochs=2)))] == [1, 2]


def test_another_recipe_does_not_continue_a_run(tmp_path: Path) -> None:
    tiny_run().save(tmp_path / "state.pt")
    with pytest.raises(ValueError, match="belongs to a run with"):
        tiny_run(replace(RECIPE, epochs=9)).resume(tmp_path / "state.pt")


def test_it_stops_when_nothing_gets_better_and_keeps_the_first_best(tmp_path: Path) -> None:
    log = train_all(tmp_path, tiny_run(replace(RECIPE, epochs=9, learning_rate=0.0, patience=2)))
    assert [entry["epoch"] for entry in log] == [1, 2, 3]
    assert json.loads((tmp_path / "confusion.json").read_text())["epoch"] == 1


def test_without_validation_the_last_epoch_is_kept(tmp_path: Path) -> None:
    run = tiny_run(replace(RECIPE, epochs=2))
    log = train_all(tmp_path, run, hold_out(DATA, 0.0, 0)[1])
    assert [entry["top1"] for entry in log] == [None, None]
    assert not (tmp_path / "confusion.json").exists()
    kept, _ = native.load(tmp_path / "model.safetensors")
    assert all(map(torch.equal, kept.parameters(), run.model.cpu().parameters()))


def test_a_frozen_body_stays_and_the_head_learns(tmp_path: Path) -> None:
    run = tiny_run(replace(RECIPE, epochs=2, freeze=True, learning_rate=0.05))
    before = {name: weight.clone() for name, weight in run.model.state_dict().items()}
    train_all(tmp_path, run)
    changed = {name for name, weight in run.model.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed == {"head.weight", "head.bias"}


def test_parts_of_a_batch_add_up_to_the_batch() -> None:
    """Exactly so where nothing is drawn for each image."""
    still = Augmentation(native_share=1.0, zoom=(1.0, 1.0), stretch=1.0, shift=0.0, flip=False)
    whole, parts = (tiny_run(replace(RECIPE, optimizer="sgd", accumulate=count)) for count in (1, 4))
    losses = [list(train_epoch(run, DATA, still)) for run in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    for left, right in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.allclose(left, right, atol=1e-5)


def test_long_gradients_are_clipped() -> None:
    plain = replace(RECIPE, optimizer="sgd", momentum=0.0, weight_decay=0.0, learning_rate=1.0)
    run = tiny_run(replace(plain, max_gradient_norm=1e-3))
    before = torch.cat([weight.detach().flatten().clone() for weight in run.model.parameters()])
    next(train_epoch(run, DATA, Augmentation()))
    moved = float((torch.cat([weight.detach().flatten() for weight in run.model.parameters()]) - before).norm())
    warmup_rate = run.optimizer.param_groups[0]["lr"]
    assert moved == pytest.approx(1e-3 * warmup_rate, rel=0.1)


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    run = tiny_run()
    with torch.no_grad():
        run.model.head.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="the loss of step 0 of epoch 1 is no number: lower --learning-rate"):
        next(train_epoch(run, DATA, Augmentation()))


def test_the_average_follows_fast_at_first_then_slowly() -> None:
    run = tiny_run(replace(RECIPE, ema_decay=0.9))
    assert run.average is not None
    with torch.no_grad():
        run.model.head.bias.fill_(0.0)
        run.average.update_parameters(run.model)  # the first one is copied
        run.model.head.bias.fill_(1.0)
        run.average.update_parameters(run.model)
    assert run.kept.head.bias.tolist() == pytest.approx([1 - 2 / 11] * 2)
    assert run.model.head.bias.tolist() == [1.0, 1.0]


def test_a_confusion_matrix_has_a_row_for_what_is_shown() -> None:
    run = tiny_run()
    with torch.no_grad():
        run.model.head.weight.zero_()
        run.model.head.bias.copy_(torch.tensor([0.0, 1.0]))  # always bright
    assert confusion(run.model, shades(10), batch=4).tolist() == [[0, 5], [0, 5]]
