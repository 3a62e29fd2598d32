"""The exported graph: one file, the contract's names and types, the manifest inside, the chosen operators."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from export import verify
from export.graph import ExportError, FoldedPatchEmbedding, Opset, SplitInputs, build_graph, check_size
from model.architecture import ViTConfig
from model.attention import Attention
from model.manifest import Manifest, Preprocessing, Provenance
from model.vit import PatchEmbedding, VisionTransformer, decode_variant
from service.onnx_pruning import without_output

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def small_model() -> VisionTransformer:
    torch.manual_seed(0)
    config, spec = decode_variant("Femto/7", classes=5)
    return VisionTransformer(replace(config, depth=2), replace(spec, **IMAGENET)).eval()


def manifest_of(model: VisionTransformer) -> Manifest:
    return Manifest("small", "1", tuple("abcde"), model.preprocessing, Provenance("random"))


@pytest.fixture(scope="module", params=[24, 18])
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Opset]:
    model = small_model()
    path = tmp_path_factory.mktemp("graph") / "small.onnx"
    ir.save(build_graph(model, manifest_of(model), request.param), path)
    return path, request.param


def test_it_is_one_file_with_the_contracts_inputs_and_outputs(artifact: tuple[Path, Opset]) -> None:
    path, _ = artifact
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [(item.name, item.type, item.shape) for item in session.get_inputs()] == [
        ("patches", "tensor(uint8)", ["batch", "patches", 147]),
        ("grid", "tensor(int64)", ["batch", 2]),
    ]
    assert [(item.name, item.type, item.shape) for item in session.get_outputs()] == [
        ("logits", "tensor(float)", ["batch", 5]),
        ("embedding", "tensor(float)", ["batch", 64]),
    ]
    manifest = Manifest.from_json(session.get_modelmeta().custom_metadata_map["patchserve"])
    assert manifest == manifest_of(small_model())


def test_it_says_nothing_of_the_machine_that_exported_it(artifact: tuple[Path, Opset]) -> None:
    content = artifact[0].read_bytes()
    assert b"stack_trace" not in content
    assert str(Path(__file__).parents[2]).encode() not in content
    assert b".py" not in content


def test_operators_are_standard_and_those_of_the_opset(artifact: tuple[Path, Opset]) -> None:
    path, opset = artifact
    model = onnx.load(path)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["Conv"] == 0
    assert operators["Attention"] == (2 if opset == 24 else 0)
    assert operators["Softmax"] == (0 if opset == 24 else 2)


def test_an_image_is_bit_equal_alone_and_in_a_mixed_padded_batch(artifact: tuple[Path, Opset]) -> None:
    session = onnxruntime.InferenceSession(str(artifact[0]), providers=["CPUExecutionProvider"])
    draw = np.random.default_rng(0)
    grids = np.array([(4, 4), (1, 1), (2, 9), (8, 8), (1, 7)], np.int64)
    patches = draw.integers(0, 256, (5, 64, 147), np.uint8)
    together = session.run(None, {"patches": patches, "grid": grids})
    for index, (rows, columns) in enumerate(grids):
        own = {"patches": patches[index : index + 1, : rows * columns], "grid": grids[index : index + 1]}
        for alone, batched in zip(session.run(None, own), together, strict=True):
            assert np.array_equal(alone[0], batched[index])


def test_folding_the_normalisation_changes_nothing() -> None:
    torch.manual_seed(0)
    embedding = PatchEmbedding(Preprocessing(7, (4, 4), 64, **IMAGENET), 32)
    patches, grid = torch.randint(0, 256, (2, 9, 147), dtype=torch.uint8), torch.tensor([[3, 3]] * 2)
    with torch.no_grad():
        folded = FoldedPatchEmbedding(embedding, torch.float32)(patches, grid)
        halved = FoldedPatchEmbedding(embedding, torch.float16).half()(patches, grid).float()
        torch.testing.assert_close(folded, embedding(patches, grid), atol=2e-6, rtol=0)
        torch.testing.assert_close(halved, embedding(patches, grid), atol=4e-3, rtol=0)


@pytest.mark.parametrize("options", [{}, {"qk_norm": True}, {"inner_norm": True}])
def test_split_inputs_drop_and_move_biases_without_a_change(options: dict[str, bool]) -> None:
    torch.manual_seed(0)
    attention = Attention(ViTConfig(width=32, depth=1, heads=2, mlp_dim=32, **options)).double()  # type: ignore[arg-type]
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    tokens, lengths = torch.randn(2, 6, 32, dtype=torch.float64), torch.tensor([6, 3])
    expected = attention(tokens, lengths)
    attention.qkv = SplitInputs(attention).double()  # type: ignore[assignment]
    torch.testing.assert_close(attention(tokens, lengths), expected, atol=1e-5, rtol=0)
    moved = [attention.qkv.get_submodule(name).bias is None for name in ("query", "key", "value")]
    assert moved == [False, "qk_norm" not in options, "inner_norm" not in options]


def test_weights_over_the_limit_of_one_file_are_refused_with_the_way_out() -> None:
    with torch.device("meta"):
        huge = VisionTransformer(*decode_variant("H/14"))
    with pytest.raises(ExportError, match=r"2\.53 GB in float32.*--precision float16"):
        check_size(huge, "float32")
    check_size(huge, "float16")


# What families of checkpoints differ in, together: no real model has all of it.
EVERYTHING = ViTConfig(
    width=64,
    depth=1,
    heads=2,
    mlp_dim=96,
    classes=0,
    class_token=False,
    registers=2,
    embedding_norm=True,
    pre_norm=True,
    block="parallel",
    norm="rms",
    layer_scale=True,
    attention="differential",
    qk_norm=True,
    inner_norm=True,
    activation="quick-gelu",
    gated_mlp=True,
    final_norm="tokens",
    pooling="attention",
)
HYBRID = ViTConfig(
    width=64,
    depth=1,
    heads=2,
    mlp_dim=96,
    classes=5,
    stem="resnetv2",
    stem_layers="1-1",
    stem_standardised=True,
    final_norm="tokens",
    pooling="token+average",
)
PLAIN = ViTConfig(width=64, depth=2, heads=2, mlp_dim=96, classes=5)
EXPLAINED = replace(EVERYTHING, attention="softmax", classes=5, branches=2, block="sequential")


@pytest.mark.parametrize(
    ("config", "patch_size", "opset", "explain"),
    [
        (EVERYTHING, 7, 24, False),
        (EVERYTHING, 7, 18, False),
        (HYBRID, 8, 24, True),
        (EXPLAINED, 7, 18, True),
        (replace(PLAIN, positions="relative"), 7, 24, True),
        (replace(PLAIN, positions="relative", qk_norm=True, pooling="average"), 7, 18, False),
    ],
)
def test_other_architectures_answer_the_same(
    config: ViTConfig, patch_size: int, opset: Opset, explain: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    spec = Preprocessing(patch_size, (3, 3), 12, resize="squash", **IMAGENET)
    model = VisionTransformer(config, spec).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    labels = tuple("abcde"[: config.classes])
    manifest = Manifest("small", "1", labels, spec, Provenance("random"), mixed_grids=config.mixed_grids)
    manifest = replace(manifest, explain=explain)
    path = tmp_path / "small.onnx"
    ir.save(build_graph(model, manifest, opset), path)
    session = verify.open_session(path)
    names = (["logits"] if config.classes else []) + ["embedding"] + (["attention"] if explain else [])
    assert [output.name for output in session.get_outputs()] == names
    grids = verify.cases(spec, mixed_grids=config.mixed_grids)
    assert all(difference.passed for difference in verify.compare(session, model, "float32", grids, explain=explain))


def test_attention_that_is_no_share_is_not_exported() -> None:
    spec = Preprocessing(7, (3, 3), 12, resize="squash")
    manifest = Manifest("small", "1", (), spec, Provenance("random"), explain=True)
    with pytest.raises(ExportError, match="export without --explain"):
        build_graph(VisionTransformer(EVERYTHING, spec), manifest, 24)


def test_attention_keeps_what_is_promised_of_logits(artifact: tuple[Path, Opset], tmp_path: Path) -> None:
    """Beside a model without it: the same operators, and the same bits of logits; padding leaves shares alone."""
    model, path = small_model(), tmp_path / "explained.onnx"
    ir.save(build_graph(model, replace(manifest_of(model), explain=True), artifact[1]), path)
    pruned = without_output(path.read_bytes(), "attention")
    operators = Counter(node.op_type for node in onnx.load(artifact[0]).graph.node)
    assert Counter(node.op_type for node in onnx.load_from_string(pruned).graph.node) == operators
    plain, explained = verify.open_session(artifact[0]), verify.open_session(path)
    grids = np.array([(4, 4), (1, 1), (2, 9)], np.int64)
    patches = np.random.default_rng(0).integers(0, 256, (3, 18, 147), np.uint8)
    logits, shares = explained.run(["logits", "attention"], {"patches": patches, "grid": grids})
    assert np.array_equal(logits, plain.run(["logits"], {"patches": patches, "grid": grids})[0])
    assert shares.sum(1) == pytest.approx([1, 1, 1], abs=1e-6)
    for row, size in enumerate(grids.prod(1)):
        own = {"patches": patches[row : row + 1, :size], "grid": grids[row : row + 1]}
        np.testing.assert_allclose(explained.run(["attention"], own)[0][0], shares[row, :size], atol=1e-6)
        assert not shares[row, size:].any()
