import json
import warnings

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
from torch import nn

from stages.evaluation.metrics import target_class as metrics_of_class
from stages.evaluation.plots import target_class as plots_of_class
from stages.networks.augmentations import image as augment_image
from stages.networks.draws import Draws
from stages.networks.heads import target_class
from stages.networks.network import Network, augmenter, initialize, load, resolve, save
from stages.schema import Column, Schema

CNN = {"encoders": {"image": {"name": "cnn", "width": 8}}}
MLP = {"encoders": {"image": {"name": "mlp", "hidden": [16]}}}


def schema(side=8, channels=1, labels=3, name="image"):
    size = {"height": side, "width": side, "channels": channels}
    fitted = size | {"mean": [100.0] * channels, "std": [50.0] * channels}
    target = {"labels": [str(code) for code in range(labels)], "counts": list(range(1, labels + 1))}
    return Schema((Column(name, "image", {}, fitted),), Column("label", "target_class", {}, target))


def network(schema, model=CNN):
    torch.manual_seed(0)
    built = Network(schema, resolve(schema, model))
    with torch.no_grad():  # zeros and ones would hide errors
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return built.eval()


def pictures(rows, side=8, channels=1):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (rows, side, side, channels), np.uint8))


def test_a_sample_draws_the_same_numbers_in_any_batch():
    alone, amid = Draws(1, 2, torch.tensor([7])), Draws(1, 2, np.array([3, 7, 9]))
    for k in (1, 4):
        assert torch.equal(alone.uniform(k)[0], amid.uniform(k)[1])


def test_draws_differ_by_seed_epoch_sample_and_call():
    keys = [(0, 0), (1, 0), (0, 1), (1, 1), (-1, 0)]
    draws = [Draws(seed, epoch, np.arange(100)) for seed, epoch in keys]
    numbers = torch.cat([draw.uniform(8) for draw in draws] + [draws[0].uniform(8)])
    assert len(numbers.unique()) == numbers.numel()


def test_draws_are_uniform():
    numbers = Draws(0, 0, np.arange(20_000)).uniform(5)
    assert numbers.dtype == torch.float32 and numbers.min() >= 0 and numbers.max() < 1
    assert np.allclose(np.histogram(numbers, 10, (0, 1))[0] / numbers.numel(), 0.1, atol=0.005)
    assert np.abs(np.corrcoef(numbers.T.numpy()) - np.eye(5)).max() < 0.03
    assert abs(np.corrcoef(numbers[:-1, 0], numbers[1:, 0])[0, 1]) < 0.03


def test_draws_are_splitmix64():
    # the key of this stream is 0 by construction; first outputs as in Vigna's splitmix64.c seeded with 0
    draws = Draws(0, 0, np.array([0]))
    draws._key_Nx1 = np.zeros((1, 1), np.uint64)
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert draws.uniform(3)[0].tolist() == [(number >> 40) / 2**24 for number in expected]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "side", "channels"),
    [(CNN, 8, 1), (MLP, 28, 1), ({"encoders": {"image": {"norm": "group", "depth": 2, "dropout": 0.1}}}, 33, 3)],
)
def test_exported_network_agrees_with_torch(tmp_path, model, side, channels):
    built = network(schema(side, channels), model)

    class Served(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = built

        def forward(self, image):
            return self.network.predict(self.network([image]))["probabilities"]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Served().eval(),
            (pictures(2, side, channels),),
            tmp_path / "model.onnx",
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["image"],
            output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for rows in (1, 2, 5):
        x = pictures(rows, side, channels)
        answered = session.run(["probabilities"], {"image": x.numpy()})[0]
        with torch.no_grad():
            expected = built.predict(built([x]))["probabilities"]
        assert answered.shape == (rows, 3) and np.abs(answered - expected.numpy()).max() < 1e-5


@pytest.mark.parametrize("side", [1, 7, 8, 28, 64, 96, 224])
def test_cnn_adapts_to_the_size_of_the_picture(side):
    built = network(schema(side, 3), {"encoders": {"image": {"width": 4}}})
    encoder = built.encoders[0]
    assert encoder(pictures(2, side, 3)).shape == (2, *encoder.shape)


def test_predictions_of_a_row_do_not_depend_on_the_batch():
    built, x = network(schema()), pictures(5)
    assert torch.allclose(built([x])[:1], built([x[:1]]), atol=1e-6)


def test_block_names_may_contain_dots():
    named = schema(name="photo.front")
    assert network(named, {"encoders": {"image": {"width": 4}}}).spec["encoders"]["photo.front"]["width"] == 4


def test_options_of_a_block_override_those_of_its_kind_and_defaults_are_written_out():
    model = {"encoders": {"image": {"name": "cnn"}, "photo": {"name": "mlp", "hidden": [5]}}}
    assert resolve(schema(name="photo"), model) == {
        "encoders": {"photo": {"name": "mlp", "hidden": [5], "dropout": 0.0}},
        "trunk": {"name": "concat", "dropout": 0.0},
        "head": {"name": "class", "label_smoothing": 0.0, "class_weights": "none"},
    }


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"encoders": {"imgae": {}}}, "encoders: no block or kind 'imgae'; did you mean 'image'?"),
        ({"encoders": {"image": {"name": "cn"}}}, "model.encoders.image: no encoder 'cn'; did you mean 'cnn'?"),
        ({"encoders": {"image": {"widht": 8}}}, "model.encoders.image: no option 'widht'; did you mean 'width'?"),
        ({"encoders": {"image": {"width": "8"}}}, "model.encoders.image.width: Input should be a valid integer"),
        (
            {"encoders": {"image": {"name": "mlp", "dropout": 1.5}}},
            "model.encoders.image.dropout: Input should",
        ),
        ({"trunk": {"name": "conct"}}, "trunk: no trunk 'conct'; did you mean 'concat'?"),
        ({"head": {"class_weight": "none"}}, "head: no option 'class_weight'; did you mean 'class_weights'?"),
        ({"head": {"class_weights": "some"}}, "head.class_weights: Input should be 'none' or 'balanced'"),
    ],
)
def test_a_misspelled_name_is_an_error_that_names_the_nearest(model, message):
    with pytest.raises(ValueError) as error:
        resolve(schema(), model)
    assert message in str(error.value)


def test_a_saved_network_stores_its_spec(tmp_path):
    fitted, x = schema(), pictures(3)
    built = network(fitted)
    for name in ("a", "b"):
        save(tmp_path / name, built.state_dict(), built.spec)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = load(tmp_path / "a", fitted)
    assert loaded.spec == built.spec and torch.equal(loaded([x]), built([x]))
    with safetensors.safe_open(tmp_path / "a", "pt") as file:
        assert list(file.metadata()) == ["network"] and json.loads(file.metadata()["network"]) == built.spec


def test_loading_a_file_that_does_not_fit_is_an_error(tmp_path):
    built = network(schema())
    save(tmp_path / "ours", built.state_dict(), built.spec)
    (tmp_path / "text").write_text("no weights")
    safetensors.torch.save_file({"w": torch.zeros(1)}, tmp_path / "theirs")
    for path, other, message in (
        ("ours", schema(labels=4), r"head.linear.weight is \[4, 16\] here and \[3, 16\] there"),
        ("ours", schema(name="photo"), "not what the schema holds"),
        ("text", schema(), "not a safetensors file"),
        ("theirs", schema(), "not written by millrace"),
    ):
        with pytest.raises(ValueError, match=message):
            load(tmp_path / path, other)


def test_initializing_from_other_weights(tmp_path):
    source = network(schema())
    save(tmp_path / "ours", source.state_dict(), source.spec)
    equal = Network(schema(), source.spec)
    assert len(initialize(equal, tmp_path / "ours", {})) == len(source.state_dict())
    assert torch.equal(equal.head.linear.weight, source.head.linear.weight)

    wider = Network(schema(labels=5), source.spec)
    with pytest.raises(ValueError, match=r"head.linear.weight is \[5, 16\] here and \[3, 16\] there"):
        initialize(wider, tmp_path / "ours", {})
    filled = initialize(wider, tmp_path / "ours", {"encoders": "encoders"})
    assert filled and all(name.startswith("encoders.0.") for name in filled)
    assert torch.equal(wider.encoders[0].layers[0].weight, source.encoders[0].layers[0].weight)


def test_initializing_by_a_name_map(tmp_path):
    safetensors.torch.save_file({"fc.weight": torch.ones(3, 16), "rest": torch.zeros(2)}, tmp_path / "theirs")
    built = network(schema(), MLP)
    assert initialize(built, tmp_path / "theirs", {"fc.weight": "head.linear.weight"}) == ["head.linear.weight"]
    assert built.head.linear.weight.eq(1).all()
    for name_map, message in (
        ({"fc.wieght": "head.linear.weight"}, "did you mean 'fc.weight'"),
        ({"rest": "head.lin"}, "head.lin is not in the network"),
        ({}, "head.linear.weight is not in the file"),
    ):
        with pytest.raises(ValueError, match=message):
            initialize(built, tmp_path / "theirs", name_map)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"shift": 0.2},
        {"flip": True, "vflip": True},
        {"rotate": 10.0},
        {"scale": 0.2, "shift": 0.1, "flip": True},
        {"erase": 0.5},
        {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
    ],
)
def test_augmented_pictures_keep_their_shape_and_depend_on_their_sample(options, channels):
    x = pictures(6, 12, channels)
    augment = augmenter(schema(12, channels), {"image": options})
    whole = augment([x], Draws(0, 1, np.arange(6)))[0]
    half = augment([x[3:]], Draws(0, 1, np.arange(3, 6)))[0]
    assert whole.shape == x.shape and whole.dtype == torch.uint8
    assert torch.equal(whole[3:], half)
    assert options.keys() == {"saturation"} or not torch.equal(whole, x)


def test_shift_and_flip_by_hand():
    x = torch.arange(16, dtype=torch.uint8).reshape(1, 4, 4, 1)

    class Fixed:
        def __init__(self, *numbers):
            self.numbers = torch.tensor([numbers])

        def uniform(self, k):
            return self.numbers[:, :k]

    flipped = augment_image.augment(x, augment_image.Options(flip=True), Fixed(0.5, 0.5, 0.9, 0.1))
    assert torch.equal(flipped, x.flip(2))
    down = augment_image.augment(x, augment_image.Options(shift=0.25), Fixed(0.0, 0.5, 0.9, 0.9))
    assert torch.equal(down[0, 1:], x[0, :-1]) and torch.equal(down[0, 0], x[0, 0])
    mirrored = augment_image.augment(
        x, augment_image.Options(scale=0.1, flip=True), Fixed(0.5, 0.5, 0.5, 0.5, 0.1, 0.9)
    )
    assert torch.equal(mirrored, x.flip(2))


def test_no_augmentation_returns_the_same_pictures():
    x = pictures(2)
    assert augmenter(schema(), {})([x], Draws(0, 0, np.arange(2)))[0] is x


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": {"shfit": 0.1}}, "train.augment.image: no option 'shfit'; did you mean 'shift'?"),
        ({"image": {"shift": 2}}, "train.augment.image: shift must be between 0 and 1, not 2"),
        ({"image": {"flip": "yes"}}, "train.augment.image.flip: Input should be a valid boolean"),
        ({"imag": {}}, "augment: no block or kind 'imag'; did you mean 'image'?"),
    ],
)
def test_a_misspelled_augmentation_is_an_error(options, message):
    with pytest.raises(ValueError) as error:
        augmenter(schema(), options)
    assert message in str(error.value)


def test_balanced_loss_weighs_classes_equally():
    target = schema().target  # 1, 2 and 3 training samples
    head = target_class.Head(target, 4, class_weights="balanced")
    y = torch.tensor([0, 1, 1, 2, 2, 2])
    assert head.weight[y].mean().item() == pytest.approx(1)
    assert head.loss(torch.zeros(6, 3), y).item() == pytest.approx(np.log(3))
    shards = [head.loss(torch.eye(6, 3)[half], y[half]) for half in (slice(0, 3), slice(3, 6))]
    assert torch.stack(shards).mean().item() == pytest.approx(head.loss(torch.eye(6, 3), y).item())


@pytest.mark.parametrize("labels", [2, 4])
def test_metrics_agree_with_scikit_learn(labels):
    from sklearn import metrics as reference

    target = schema(labels=labels).target
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(labels), 200).astype(np.float32)
    y = random.integers(0, labels, 200)
    collection = metrics_of_class.metrics(target)
    for half in (slice(0, 77), slice(77, 200)):
        collection.update(torch.from_numpy(probabilities[half]), torch.from_numpy(y[half]))
    computed = collection.compute()
    values, best = metrics_of_class.scalars(computed, target), probabilities.argmax(1)
    assert values["accuracy"] == pytest.approx(reference.accuracy_score(y, best))
    scores = reference.precision_recall_fscore_support(y, best, labels=range(labels))
    for name, expected in zip(("precision", "recall", "f1"), scores, strict=False):
        assert values[f"{name}_macro"] == pytest.approx(expected.mean(), abs=1e-6)
        assert [values[f"{name}[{label}]"] for label in target.fitted["labels"]] == pytest.approx(list(expected))
    assert values["recall_worst"] == pytest.approx(min(scores[1]))
    hits = metrics_of_class.hits(probabilities, y, target)
    assert {name: hit[among].mean() for name, (hit, among) in hits.items()} == pytest.approx(
        {name: values[name] for name in ("accuracy", *(f"recall[{label}]" for label in target.fitted["labels"]))}
    )
    aurocs = [reference.roc_auc_score(y == code, probabilities[:, code]) for code in range(labels)]
    assert values["auroc"] == pytest.approx(np.mean(aurocs), abs=1e-5)
    assert 0 < values["calibration_error"] < 1
    assert computed["confusion"].tolist() == reference.confusion_matrix(y, best).tolist()


def test_classes_without_samples_do_not_count():
    collection = metrics_of_class.metrics(schema(labels=4).target)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collection.update(torch.eye(4)[[0, 1, 1]] * 0.9 + 0.025, torch.tensor([0, 1, 1]))
        values = collection.compute()
    for name in ("accuracy", "precision_macro", "recall_macro", "recall_worst", "f1_macro", "auroc"):
        assert values[name] == 1


def test_a_class_that_is_predicted_but_never_true_has_no_part_in_macro_averages():
    """Three of ten classes have samples. One mistake is within the three, one is another class."""
    from sklearn import metrics as reference

    target, truth = schema(labels=10).target, np.repeat([0, 1, 2], 20)
    for first in (1, 7):
        best = np.r_[first, truth[1:]]
        collection = metrics_of_class.metrics(target)
        collection.update(torch.eye(10)[best], torch.from_numpy(truth))
        values = collection.compute()
        each = reference.precision_recall_fscore_support(truth, best, labels=range(3), zero_division=0)
        for name, expected in zip(("precision_macro", "recall_macro", "f1_macro"), each, strict=False):
            assert values[name].item() == pytest.approx(expected.mean())
        assert values["recall_worst"].item() == pytest.approx(0.95)


def test_with_samples_of_every_class_macro_averages_equal_torchmetrics_to_the_last_bit():
    from torchmetrics.classification import MulticlassF1Score, MulticlassPrecision, MulticlassRecall

    random, y = np.random.default_rng(0), torch.arange(70) % 7
    classes, target = (MulticlassPrecision, MulticlassRecall, MulticlassF1Score), schema(labels=7).target
    for _ in range(20):
        predictions = torch.from_numpy(random.dirichlet(np.ones(7), 70)).float()
        collection = metrics_of_class.metrics(target)
        collection.update(predictions, y)
        values = collection.compute()
        for name, metric in zip(("precision_macro", "recall_macro", "f1_macro"), classes, strict=True):
            assert values[name].item() == metric(7, average="macro")(predictions, y).item()


def test_metrics_that_the_true_classes_do_not_define_are_listed():
    target = schema(labels=3).target
    names = target.fitted["labels"]
    undefined = {f"{metric}[{names[2]}]" for metric in metrics_of_class.METRICS_BY_LABEL}
    assert metrics_of_class.undefined(np.array([0, 1, 1]), target) == undefined
    assert metrics_of_class.undefined(np.array([0, 1, 2]), target) == set()
    assert "auroc" in metrics_of_class.undefined(np.array([1, 1, 1]), target)


def test_plots_are_the_same_bytes_each_time():
    import io

    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 40)
    drawn = []
    for _ in range(2):
        figures = plots_of_class.plots({"probabilities": probabilities}, np.arange(40) % 3, schema().target)
        assert list(figures) == ["confusion", "reliability"]
        for figure in figures.values():
            figure.savefig(file := io.BytesIO(), format="png")
            drawn.append(file.getvalue())
    assert drawn[:2] == drawn[2:]
