"""Networks written as Python or ONNX compute, without this package, what they computed here."""

from __future__ import annotations

import ast
import inspect
import runpy
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from naswot._export_layers import layer_source
from naswot.errors import DataError, InputError, MissingPackageError, OptionError
from naswot.export import export_onnx, export_pytorch
from naswot.seeding import derive_seed, numpy_generator, seeded, torch_generator
from naswot.space import get_space, list_spaces

NOISY = ["robustdarts_s4"]  # its networks draw random numbers in evaluation too, so they are no function of the images
IMAGE_SPACES = [name for name in list_spaces(without=NOISY) if get_space(name).input_kind == "images"]

# runs every file where there is no naswot: outputs, parameters and gradients go into one file
ELSEWHERE = """
import importlib.util, sys
sys.modules["naswot"] = None  # importing it would fail
import torch
torch.set_num_threads(1)
results = {}
for path in sys.argv[2:]:
    spec = importlib.util.spec_from_file_location("exported", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model, inputs = module.load(), torch.load(path + ".inputs", weights_only=True)
    assert not model.training
    with torch.no_grad():
        outputs = [model(images) for images in inputs]
    model.train()
    torch.manual_seed(5)
    model(inputs[-1]).square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    results[path] = {"outputs": outputs, "gradients": gradients, "state": list(model.state_dict())}
torch.save(results, sys.argv[1])
"""


def images(space, n, *, seed=0, size=None):
    size = size or min(space.input_size, 64) // 2
    return torch.randn(n, 3, size, size, generator=torch_generator(seed))


def built(name, *, seed=0, size=None, **options):
    """A random architecture (the smallest of some), with running statistics that are not those of a fresh network."""
    space = get_space(name)
    offered = inspect.signature(space.build).parameters
    small = {key: value for key, value in {"width": 8, "n_cells": 3}.items() if key in offered} | options
    rng = numpy_generator(derive_seed(seed, name))
    genotype = min((space.sample(rng) for _ in range(4)), key=lambda g: n_parameters(space, g, small))
    with seeded(seed):
        model = space.build(genotype, **small)
    with torch.no_grad():
        model.train()(images(space, 4, size=size))
    return space, model.eval()


def n_parameters(space, genotype, options):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in space.build(genotype, **options).parameters())


def run_elsewhere(paths, folder):
    results = folder / "results.pt"
    command = [sys.executable, "-I", "-c", ELSEWHERE, results, *paths]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return torch.load(results, weights_only=True)


def exported(model, path, inputs, **options):
    export_pytorch(model, path, example=inputs[0], **options)
    torch.save(inputs, f"{path}.inputs")


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory):
    """By space: the network here, its inputs, and what its file gave in another process."""
    folder = tmp_path_factory.mktemp("export")
    here = {}
    for name in IMAGE_SPACES:
        space, model = built(name)
        inputs = [images(space, n, seed=9 + n) for n in (2, 1, 3)]
        exported(model, folder / f"{name}.py", inputs, about={"space": name})
        here[name] = (model, inputs, folder / f"{name}.py")
    found = run_elsewhere([path for _, _, path in here.values()], folder)
    return {name: (model, inputs, path, found[str(path)]) for name, (model, inputs, path) in here.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGE_SPACES)
def test_every_space_without_this_package(name, everywhere):
    model, inputs, path, found = everywhere[name]
    with torch.no_grad():
        for given, output in zip(inputs, found["outputs"], strict=True):
            expected = model(given)
            assert float((output - expected).abs().max()) <= 1e-6 * max(1.0, float(expected.abs().max()))
            assert output.std() > 0
    assert set(found["state"]) == set(model.state_dict())
    with seeded(5):
        model.train()(inputs[-1]).square().sum().backward()
    expected = {parameter: value.grad for parameter, value in model.named_parameters()}
    model.eval()
    assert found["gradients"].keys() == expected.keys()
    for parameter, gradient in found["gradients"].items():
        assert (gradient is None) == (expected[parameter] is None), parameter
    imports = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imports == {"torch"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nasbench201", "darts"])
def test_gradients_in_training_are_those_of_the_network(name, everywhere):
    model, inputs, _, found = everywhere[name]
    model.zero_grad()
    with seeded(5):
        model.train()(inputs[-1]).square().sum().backward()
    for parameter, value in model.named_parameters():
        torch.testing.assert_close(found["gradients"][parameter], value.grad, rtol=1e-4, atol=1e-6)


class Mixed(nn.Module):
    """What lies outside layers: parameters, buffers of both kinds, functions, an attribute, a second argument."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, 5, 6) * 0.3 + 2)
        self.scale = nn.Parameter(torch.full((6,), 0.1234567))
        self.frozen = nn.Parameter(torch.ones(6), requires_grad=False)
        self.register_buffer("index", torch.tensor([3, 1, 0, 2, 4]))
        self.inner = nn.Module()
        self.inner.register_buffer("bound", torch.tensor([[-float("inf"), 0.5]]), persistent=False)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.norm = nn.LayerNorm((6,), eps=1e-3)
        self.unused = nn.Linear(3, 3)
        self.out = nn.Linear(6, 4, bias=False)

    def forward(self, x, mask=None):
        n, c = x.shape[0], x.size(1)
        tokens = x.reshape(n, c, 5, -1).mean(1)[..., :6] + self.position[:, self.index]
        if mask is not None:
            tokens = tokens * mask
        tokens = self.norm(tokens) * self.scale + tokens - 2 ** -functional.relu(tokens * 1, inplace=True) * self.frozen
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        tokens = torch.maximum(tokens, self.inner.bound[:, 1:])
        tokens = functional.dropout(tokens, 0.5, self.training)
        return (
            self.out(tokens.mean(dim=1))
            + x.new_zeros(n, *x.shape[3:3], 4)
            + sum(x.new_ones(*x.shape).shape[1:]) * self.scale[0]
        )


def test_what_lies_outside_layers(tmp_path):
    with seeded(1):
        model = Mixed()
        inputs = [torch.randn(n, 2, 5, 7) for n in (1, 4)]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    exported(model, tmp_path / "mixed.py", inputs)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    found = run_elsewhere([tmp_path / "mixed.py"], tmp_path)[str(tmp_path / "mixed.py")]
    model.eval()
    for given, output in zip(inputs, found["outputs"], strict=True):
        torch.testing.assert_close(output, model(given), rtol=1e-6, atol=1e-6)
    assert set(found["state"]) == {key for key in model.state_dict() if not key.startswith("unused")}
    assert found["gradients"]["position"].abs().sum() > 0
    assert found["gradients"]["frozen"] is None
    text = (tmp_path / "mixed.py").read_text()
    assert "# Left out, as evaluation does not use them: unused." in text
    assert "# In training, the original network computes something else." in text  # its dropout
    assert "chooses by the size" not in text  # it only asks for the number of dimensions


def test_what_is_chosen_by_the_size_of_the_images_is_said(tmp_path):
    class Choosing(nn.Linear):
        def forward(self, x):
            return super().forward(x if x.shape[1] == 3 else x.mean(1, keepdim=True).expand(*x.shape[:1], 3))

    for width, choice in {3: "x = nn.functional.linear(x, ", 5: "expand("}.items():
        path = export_pytorch(Choosing(3, 2), tmp_path / f"w{width}.py", example=torch.ones(2, width))
        assert f"# It does for ({width}) what the original network chooses by the size" in path.read_text()
        assert choice in path.read_text()
        assert ("expand(" in path.read_text()) == (width == 5)
    plain = export_pytorch(nn.Sequential(nn.Linear(3, 2)), tmp_path / "plain.py", example=torch.ones(2, 3))
    assert "chooses" not in plain.read_text()


def test_without_weights_the_file_starts_like_the_network(tmp_path):
    with seeded(1):
        model = Mixed()
        example = torch.randn(2, 2, 5, 7)
    export_pytorch(model, tmp_path / "mixed.py", example=example, weights=False, class_name="Small")
    assert not (tmp_path / "mixed.pt").exists()
    names = runpy.run_path(str(tmp_path / "mixed.py"))
    with seeded(0):
        fresh = names["Small"]()
    assert fresh.scale.tolist() == model.scale.tolist()
    assert not fresh.frozen.requires_grad
    assert float(fresh.position.detach().mean()) == pytest.approx(2, abs=0.3)
    assert not torch.equal(fresh.position, model.position)
    assert fresh.inner.bound.tolist() == model.inner.bound.tolist()
    torch.save(model.state_dict(), tmp_path / "all.pt")
    with pytest.raises(RuntimeError, match=r"unused\.weight"):
        names["load"](str(tmp_path / "all.pt"))


def test_a_second_classifier_and_drop_path_are_left_out_and_said_to_be(tmp_path):
    _, model = built("darts", size=32, auxiliary=True, drop_prob=0.3)
    path = export_pytorch(model, tmp_path / "net.py", example=images(get_space("darts"), 2), about={"seed": "a\nb"})
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert "# seed: a b" in head
    assert "# Left out, as evaluation does not use them: auxiliary." in head
    assert "# In training, the original network computes something else." in head
    made = runpy.run_path(str(path))["load"]()
    left = {name for name, _ in model.named_parameters()} - {name for name, _ in made.named_parameters()}
    assert left == {name for name, _ in model.named_parameters() if name.startswith("auxiliary.")}
    plain = export_pytorch(built("darts")[1], tmp_path / "plain.py", example=images(get_space("darts"), 2))
    assert "In training, the original" not in plain.read_text()


LAYERS = [
    (nn.Conv2d(3, 6, (3, 5), (1, 2), (1, 2), groups=3, padding_mode="reflect"), "padding_mode"),
    (nn.Conv2d(4, 4, 3, padding="same", dilation=2), "padding='same'"),
    (nn.ConvTranspose2d(2, 3, 3, 2, output_padding=1), "output_padding=1"),
    (nn.BatchNorm2d(5, eps=1e-3, momentum=None, affine=False), "momentum=None"),
    (nn.BatchNorm1d(5, track_running_stats=False), "track_running_stats=False"),
    (nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), "count_include_pad=False"),
    (nn.AvgPool2d(2, ceil_mode=True, divisor_override=3), "divisor_override=3"),
    (nn.AdaptiveAvgPool2d((None, 2)), "(None, 2)"),
    (nn.LayerNorm((4, 4), bias=False), "bias=False"),
    (nn.LeakyReLU(0.3, inplace=True), "negative_slope=0.3, inplace=True"),
    (nn.GELU(approximate="tanh"), "tanh"),
    (nn.Linear(3, 2, bias=False, dtype=torch.float64), "dtype=torch.float64"),
    (nn.MultiheadAttention(8, 2, bias=False, batch_first=True), "batch_first=True"),
    (nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=True), "align_corners=True"),
]


@pytest.mark.parametrize(("layer", "said"), LAYERS, ids=lambda value: type(value).__name__)
def test_layers_come_back_with_everything_that_matters(layer, said):
    source = layer_source(layer, "here")
    assert said in source
    made = eval(source, {"nn": nn, "torch": torch})
    assert type(made) is type(layer)
    assert repr(made) == repr(layer)
    shown = {name: (t.shape, t.dtype) for name, t in layer.state_dict().items()}
    assert {name: (t.shape, t.dtype) for name, t in made.state_dict().items()} == shown


def changed(layer, **attributes):
    for name, value in attributes.items():
        setattr(layer, name, value)
    return layer


def hooked():
    layer = nn.Linear(3, 3)
    layer.register_forward_hook(lambda module, args, output: output + 1)
    return layer


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            changed(nn.Linear(3, 3), in_features=4),
            r"layer 0 cannot be written: nn.Linear\(4, 3\) differs in parameters",
        ),
        (changed(nn.ReLU(), extra=1), r"layer 0 cannot be written: nn.ReLU\(\) differs in extra: 'none' for 1"),
        (
            nn.TransformerEncoder(nn.TransformerEncoderLayer(3, 1), 1, enable_nested_tensor=False),
            "layer 0 cannot be written: nn.TransformerEncoder",
        ),
        (hooked(), r"layer 0 \(Linear\) carries hooks"),
    ],
    ids=["shape", "attribute", "constructor", "hook"],
)
def test_a_layer_that_cannot_be_written_is_named(layer, message, tmp_path):
    with pytest.raises(InputError, match=message):
        export_pytorch(nn.Sequential(layer), tmp_path / "a.py", example=torch.zeros(2, 3))
    assert not list(tmp_path.iterdir())


def test_a_layer_whose_arguments_are_unknown_is_refused():
    with pytest.raises(InputError, match=r"layer memory cannot be written: nn.LSTM\(\) raises TypeError"):
        layer_source(nn.LSTM(3, 3), "memory")


class Forward(nn.Module):
    """A layer and a forward of one's own."""

    def __init__(self, forward):
        super().__init__()
        self.layer, self.call, self.n = nn.Linear(3, 3), forward, 0

    def forward(self, x):
        return self.call(self, x)


def counts(self, x):
    self.n += 1
    return self.layer(x) * self.n


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda self, x: self.layer(x) if x.sum() > 0 else x, r"asks for bool\(gt\), which depends on the values"),
        (lambda self, x: self.layer(x) if x.shape[0] > 2 else x, r"asks for bool\(gt\), which depends on the values"),
        (lambda self, x: self.layer(x.reshape(2 * (len(x.detach()) // 2), 3)), r"asks for len\("),
        (lambda self, x: self.layer(x) + torch.zeros(5000, 3)[0], None),
        (lambda self, x: self.layer(x + torch.arange(5001.0)[:3] @ torch.eye(3)), None),
        (lambda self, x: sum(self.layer(row) for row in x) + x, r"asks for len\("),
        (lambda self, x: (self.layer(x), x), "gives a tensor of logits, but got a tuple"),
        (lambda self, x: self.layer(x[:, :2]), "raised RuntimeError on images of shape"),
        (counts, "depends on more than its inputs"),
    ],
)
def test_a_forward_that_cannot_be_written_is_refused(forward, message, tmp_path):
    def export():
        export_pytorch(Forward(forward), tmp_path / "a.py", example=torch.ones(2, 3))

    if message is None:  # constants that are worked out before the images come in are only written where they are used
        export()
        return
    with pytest.raises(InputError, match=message):
        export()
    assert not list(tmp_path.iterdir())


def test_shared_parameters_are_refused(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    with pytest.raises(InputError, match=r"0\.weight and 2\.weight are one parameter"):
        export_pytorch(model, tmp_path / "a.py", example=torch.zeros(2, 3))
    twice = nn.Sequential(model[0], nn.ReLU(), model[0])  # a layer that is used twice is no difficulty
    export_pytorch(twice, tmp_path / "a.py", example=torch.zeros(2, 3))
    assert sum(p.numel() for p in runpy.run_path(str(tmp_path / "a.py"))["load"]().parameters()) == 12


def test_names_may_hold_any_letters(tmp_path):
    names = [
        "it's",
        '5"',
        "both ' and \"",
        "back\\slash",
        "two\nlines",
        "Gr\N{LATIN SMALL LETTER O WITH DIAERESIS}\u00dfe",
    ]

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleDict({name: nn.Linear(4, 4) for name in names})
            self.outer = nn.ModuleDict({name: nn.ModuleDict({name: nn.Linear(4, 4)}) for name in names})
            for number, name in enumerate(names):
                self.register_parameter(f"p{name}", nn.Parameter(torch.randn(4)))
                self.register_buffer(f"b{name}", torch.full((4,), float(number)), persistent=number % 2 == 0)

        def forward(self, x):
            x = x.mean((2, 3))
            for name in names:
                x = self.outer[name][name](torch.relu(self.parts[name](x)))
                x = x * getattr(self, f"p{name}") + getattr(self, f"b{name}")
            return x

    with seeded(0):
        model = Odd().eval()
    inputs = [torch.randn(n, 4, 2, 2, generator=torch_generator(n)) for n in (1, 2)]
    exported(model, tmp_path / "odd.py", inputs)
    found = run_elsewhere([tmp_path / "odd.py"], tmp_path)[str(tmp_path / "odd.py")]
    for given, output in zip(inputs, found["outputs"], strict=True):
        torch.testing.assert_close(output, model(given).detach())
    assert set(found["state"]) == set(model.state_dict())


def test_a_file_that_cannot_be_written_leaves_the_old_ones(tmp_path, monkeypatch):
    model, example = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.ones(1, 1, 2, 2)
    for name in ("m.py", "m.pt", "m.onnx"):
        (tmp_path / name).write_text("old")

    def full(state, path):
        path.write_bytes(b"half")
        raise RuntimeError("no space left")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DataError, match=r"cannot write .*m\.py: no space left"):
        export_pytorch(model, tmp_path / "m.py", example=example)
    onnx = pytest.importorskip("onnx")

    def refuse(path, **_):
        raise onnx.checker.ValidationError("bad")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(InputError, match=r"m\.onnx would be no valid ONNX file"):
        export_onnx(model, tmp_path / "m.onnx", example=example)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        ("m.py", "m.pt", "m.onnx"), "old"
    )


def test_names_and_paths_are_checked(tmp_path):
    model, example = nn.Linear(3, 2), torch.zeros(2, 3)
    for name in ("Group", "class", "1st", "torch"):
        with pytest.raises(OptionError, match=f"class name other than.*{name!r}"):
            export_pytorch(model, tmp_path / "a.py", example=example, class_name=name)
    with pytest.raises(OptionError, match=r"ends in \.py"):
        export_pytorch(model, tmp_path / "a.txt", example=example)
    with pytest.raises(OptionError, match=r"ends in \.onnx"):
        export_onnx(model, tmp_path / "a.py", example=example)
    with pytest.raises(DataError, match="there is no folder"):
        export_pytorch(model, tmp_path / "none" / "a.py", example=example)
    (tmp_path / "a.py").mkdir()
    with pytest.raises(DataError, match="cannot write"):
        export_pytorch(model, tmp_path / "a.py", example=example)
    assert [path.name for path in tmp_path.iterdir()] == ["a.py"]


def test_random_state_is_as_before(tmp_path):
    model, state = nn.Sequential(nn.Linear(3, 2)), torch.get_rng_state()
    export_pytorch(model, tmp_path / "a.py", example=torch.zeros(1, 3))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nasbench201", "nasbench101", "nds_darts"])
def test_onnx_runs_elsewhere(name, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    space, model = built(name)
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    path = export_onnx(model, tmp_path / "net.onnx", example=images(space, 1))
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert list(tmp_path.iterdir()) == [path]
    session = runtime.InferenceSession(path)
    model.eval()
    for n in (1, 2, 7):
        given = images(space, n, seed=n)
        (logits,) = session.run(["logits"], {"images": given.numpy()})
        with torch.no_grad():
            expected = model(given)
        assert float((torch.from_numpy(logits) - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


def test_onnx_refuses_what_it_cannot_do(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    model = Forward(lambda self, x: self.layer(x.reshape(2, 3)))
    with pytest.raises(InputError, match="Forward would be written as ONNX for 2 images only"):
        export_onnx(model, tmp_path / "a.onnx", example=torch.ones(2, 3))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingPackageError, match=r"naswot\[onnx\]"):
        export_onnx(model, tmp_path / "a.onnx", example=torch.ones(2, 3))


ARCH = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|"
SMALL = "--build width=4 --build n_cells=1 --n-classes 7 --size 16".split()


def test_command_writes_trained_weights(run, tmp_path):
    space = get_space("nasbench201")
    model = space.build(space.parse(ARCH), width=4, n_cells=1, n_classes=7)
    torch.save(model.state_dict(), tmp_path / "trained.pt")
    to = tmp_path / "net.py"
    code, out, _ = run("export", ARCH, *SMALL, "--to", to, "--weights", tmp_path / "trained.pt", "--class-name", "Net")
    assert code == 0
    n = sum(p.numel() for p in model.parameters())
    assert out == f"wrote {to} and {tmp_path / 'net.pt'}: {n:,} parameters, trained, images of 3 x 16 x 16\n"
    names = runpy.run_path(str(to))
    given = torch.randn(3, 3, 16, 16, generator=torch_generator(0))
    assert torch.allclose(names["load"]()(given), model.eval()(given), atol=1e-6)
    assert f"# architecture: {ARCH}" in to.read_text()
    assert "# weights: from trained.pt" in to.read_text()


def test_command_writes_the_network_that_is_scored(run, tmp_path):
    from naswot.data import get_data
    from naswot.evaluate import Evaluator

    space = get_space("nasbench201")
    evaluator = Evaluator(space, get_data("digits"), ("params",), 4, seed=3, build={"width": 4, "n_cells": 1})
    to = tmp_path / "net.py"
    code, _, _ = run("export", ARCH, "--build", "width=4", "--build", "n_cells=1", "--seed", 3, "--to", to)
    assert code == 0
    state = runpy.run_path(str(to))["load"]().state_dict()
    scored = evaluator.model(space.parse(ARCH)).state_dict()
    assert all(torch.equal(value, scored[name]) for name, value in state.items())


def test_command_explains(run, tmp_path):
    (tmp_path / "text.pt").write_text("nothing")
    torch.save([1], tmp_path / "list.pt")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    space = get_space("nasbench201")
    torch.save(space.build(space.parse(ARCH), width=4, n_cells=1).state_dict(), tmp_path / "ten.pt")
    for name, message in {
        "text.pt": "cannot be read as weights",
        "list.pt": "expected a state dict in",
        "other.pt": "those of another network",
        "ten.pt": "have other shapes than the network",
    }.items():
        code, _, err = run("export", ARCH, *SMALL, "--to", tmp_path / "a.py", "--weights", tmp_path / name)
        assert (code, message in err) == (1, True), err
    code, _, err = run("export", ARCH, "--build", "depth=3", "--to", tmp_path / "a.py")
    assert code == 1
    assert "has no build option 'depth'" in err
    code, _, err = run("export", ARCH, "--to", tmp_path / "a.txt")
    assert code == 2
    assert not (tmp_path / "a.py").exists()
    code, _, _ = run("export", ARCH, *SMALL, "--to", tmp_path / "a.py", "--source-only")
    assert code == 0
    assert not (tmp_path / "a.pt").exists()
