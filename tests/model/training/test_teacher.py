"""A student learns what its teacher says; a teacher that does not fit is one clear line."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from shades import RECIPE, shades, tiny_checkpoint, tiny_model

from model.augment import STILL, augment
from model.bit import ResNet
from model.checkpoints import baseline, native
from model.checkpoints.loading import CheckpointError
from model.checkpoints.native import Description
from model.data import LabelledImages
from model.manifest import Preprocessing
from model.sources.load import load, locate
from model.sources.source import parse_source
from model.training.run import Run, start_run
from model.training.steps import train_epoch
from model.training.teacher import Teacher, divergence, load_teacher
from model.training.validation import native_top1

SPEC = tiny_model().preprocessing
DATA = shades()


def taught_run(teacher: Teacher, **numbers: float) -> Run:
    recipe = replace(RECIPE, teacher=teacher.digest, **numbers)
    return start_run(tiny_model(), recipe, Accelerator(cpu=True, mixed_precision="no"), teacher=teacher)


def opposite_teacher() -> Teacher:
    """Says `dark` of what is bright: it has learned the opposite of the labels."""
    data = LabelledImages(DATA.images, 1 - DATA.targets, DATA.labels)
    run = start_run(tiny_model(seed=3), RECIPE, Accelerator(cpu=True, mixed_precision="no"))
    for _ in range(3):
        list(train_epoch(run, data, STILL))
    assert native_top1(run.model, data) > 0.9
    return Teacher(run.model.eval(), "opposite")


def test_the_divergence_is_that_of_softened_answers() -> None:
    """Teacher 3:1, student 1:1 at temperature 2: 4 * (3/4 ln(3/2) + 1/4 ln(1/2))."""
    teacher = torch.tensor([[2 * math.log(3), 0.0]])
    student = torch.tensor([[5.0, 5.0]])
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert divergence(student, teacher, 2.0).item() == pytest.approx(expected, abs=1e-6)
    assert divergence(teacher + 7, teacher, 2.0).item() == pytest.approx(0.0, abs=1e-6)
    both = divergence(student.repeat(2, 1), torch.cat([teacher, student]), 2.0)
    assert both.item() == pytest.approx(expected / 2, abs=1e-6)  # a mean over the images


@pytest.mark.parametrize(("weight", "agrees"), [(1.0, 0), (0.0, 1)])
def test_the_weight_is_between_teacher_and_labels(weight: float, agrees: int) -> None:
    """With the whole weight the student follows even a teacher that is wrong; with none, the labels."""
    run = taught_run(opposite_teacher(), teacher_weight=weight)
    for _ in range(4):
        list(train_epoch(run, DATA, STILL))
    assert native_top1(run.model, DATA) == pytest.approx(agrees, abs=0.1)


def test_the_loss_is_the_weighted_sum() -> None:
    teacher = Teacher(tiny_model(seed=5).eval(), "other")
    first = {
        weight: next(train_epoch(taught_run(teacher, teacher_weight=weight), DATA, STILL)) for weight in (0, 0.25, 1)
    }
    assert first[0.25] == pytest.approx(0.25 * first[1] + 0.75 * first[0], abs=1e-6)


def test_the_teacher_sees_the_patches_of_the_student_and_never_changes() -> None:
    teacher = Teacher(tiny_model(seed=5).eval(), "other")
    before = {name: weight.clone() for name, weight in teacher.model.state_dict().items()}
    run, seen = taught_run(teacher), []
    for model in (teacher.model, run.model):
        model.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    list(train_epoch(run, DATA, replace(STILL, native_share=0.0)))
    assert len(seen) == 2 * RECIPE.steps(len(DATA))
    for student, taught in zip(seen[::2], seen[1::2], strict=True):
        assert all(map(torch.equal, student, taught))
    assert all(torch.equal(weight, before[name]) for name, weight in teacher.model.state_dict().items())
    assert all(weight.grad is None for weight in teacher.model.parameters())


def test_a_taught_run_continues_bit_for_bit(tmp_path: Path) -> None:
    teacher = Teacher(tiny_model(seed=5).eval(), "other")
    whole, again = taught_run(teacher), taught_run(teacher)
    for epoch in range(2):
        list(train_epoch(whole, DATA, replace(STILL, native_share=0.5)))
        if epoch == 0:
            whole.save(tmp_path / "state.pt")
    again.resume(tmp_path / "state.pt")
    list(train_epoch(again, DATA, replace(STILL, native_share=0.5)))
    assert all(map(torch.equal, whole.model.parameters(), again.model.parameters()))


def test_another_teacher_does_not_continue_a_run(tmp_path: Path) -> None:
    teacher = Teacher(tiny_model(seed=5).eval(), "one")
    taught_run(teacher).save(tmp_path / "state.pt")
    taught_run(teacher).resume(tmp_path / "state.pt")
    with pytest.raises(ValueError, match="belongs to a run with"):
        taught_run(Teacher(teacher.model, "two")).resume(tmp_path / "state.pt")


def test_a_resnet_teaches_from_its_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = Preprocessing(patch_size=7, native_grid=(4, 4), max_patches=64, resize="aspect")
    model = ResNet((2, 2, 2), 0.125, 2, spec).eval()
    torch.nn.init.normal_(model.head.weight)
    baseline.save(tmp_path / "model.safetensors", model, "R20x0.125", DATA.labels)
    teacher = load_teacher(str(tmp_path), DATA.labels, SPEC)
    assert not teacher.model.training
    patches, grid = augment(DATA.images[:4], (4, 4), 7, STILL, torch.Generator()), torch.tensor([[4, 4]] * 4)
    assert torch.equal(teacher.ask(patches, grid), model(patches, grid)[0])
    assert len(teacher.digest) == 64
    with pytest.raises(CheckpointError, match="which can be a --teacher and nothing else"):
        load(locate(parse_source(str(tmp_path))))


def test_a_resnet_file_that_lies_is_refused(tmp_path: Path) -> None:
    spec = Preprocessing(patch_size=7, native_grid=(4, 4), max_patches=64, resize="aspect")
    model = ResNet((2, 2, 2), 0.125, 2, spec)
    baseline.save(tmp_path / "a.safetensors", model, "R20x0.25", DATA.labels)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        baseline.load(tmp_path / "a.safetensors")
    baseline.save(tmp_path / "b.safetensors", model, "R19", DATA.labels)
    with pytest.raises(CheckpointError, match=r"b\.safetensors: its metadata cannot be read: 'R19' is not a known"):
        baseline.load(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("labels", "spec", "message"),
    [
        (("a", "b", "c"), SPEC, "it knows 5 classes, and DATA has 3"),
        (("old 0", "old 1", "new", "old 3", "old 4"), SPEC, "it says 'old 2' where DATA says 'new'"),
        (("a",), replace(SPEC, patch_size=4), "its patches have 7 pixels, not 4"),
        (("a",), replace(SPEC, max_patches=99), "it takes 64 patches at most; give --max-patches 64 or less"),
    ],
)
def test_a_teacher_that_does_not_fit_is_named(
    tmp_path: Path, labels: tuple[str, ...], spec: Preprocessing, message: str
) -> None:
    source = str(tiny_checkpoint(tmp_path / "old.safetensors"))
    with pytest.raises(ValueError, match=rf"--teacher {source} cannot teach this model: {message}"):
        load_teacher(source, labels, spec)


def test_a_checkpoint_that_can_be_served_teaches(tmp_path: Path) -> None:
    native.save(tmp_path / "model.safetensors", tiny_model(seed=5), Description(DATA.labels, "taught"))
    assert load_teacher(str(tmp_path), DATA.labels, SPEC).model.config.depth == 2
