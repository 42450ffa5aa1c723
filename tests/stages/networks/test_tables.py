"""Encoders and trunks of tables, and the head of a regression: missing values, unknown words, the exported graph."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from stages.evaluation.metrics import target_number as metrics_of_number
from stages.evaluation.plots import target_number as plots_of_number
from stages.evaluation.samples import target_number as samples_of_number
from stages.export import to_onnx
from stages.networks import numbers
from stages.networks.attention import Layer
from stages.networks.heads import target_number
from stages.networks.network import Network, resolve
from stages.networks.numbers import Pieces
from stages.schema import Column, Schema
from stages.schema.kinds import category, number
from stages.training.learner import of_each_member

DRAW = np.random.default_rng(0)
AGES, WAGES = DRAW.uniform(18, 90, 300).round(), DRAW.lognormal(8, 1, 300)
FEATURES = (
    Column("age", "number", {}, number.fit([AGES.tolist()], number.Options())),
    Column("job", "category", {}, category.fit([["cook", "clerk", "smith"] * 9], category.Options())),
    Column("wage", "number", {}, number.fit([WAGES.tolist()], number.Options())),
    Column("town", "category", {}, category.fit([["x", "y"] * 9], category.Options(buckets=3))),
)
SCALED = (
    Column("age", "number", {}, number.fit([AGES.tolist()], number.Options(missing="median"))),
    FEATURES[1],
    Column("wage", "number", {}, number.fit([WAGES.tolist()], number.Options(scale="quantile", missing=-5.0))),
    FEATURES[3],
)
CLASS = Column("label", "target_class", {}, {"labels": ["no", "yes"], "counts": [200, 100]})
NUMBER = Column("price", "target_number", {}, {"mean": 100.0, "std": 20.0, "coverage": 0.8})
RAW = {
    "age": [20.0, None, 1e6, 55.0, -3.0],
    "job": ["cook", None, "unheard of", "smith", "clerk"],
    "wage": [None, 3000.0, 0.0, 1e9, 2000.0],
    "town": ["x", "elsewhere", None, "y", "z"],
}
SPECS = {
    "piecewise": {"encoders": {"number": {"name": "piecewise", "bins": 8}}, "trunk": {"name": "residual", "width": 16}},
    "linear": {"encoders": {"number": {"name": "linear"}, "category": {"size": 8}}, "trunk": {"name": "concat"}},
    "transformer": {
        "encoders": {"number": {"name": "linear", "size": 8}},
        "trunk": {"name": "transformer", "width": 16, "heads": 2, "depth": 2},
    },
    "ensemble": {
        "encoders": {"number": {"name": "spline", "size": 4, "bins": 8}},
        "trunk": {"name": "ensemble", "width": 16, "members": 3},
    },
}


def blocks(schema, raw=RAW):
    return [torch.from_numpy(array) for array in schema.encode(raw).values()]


def network(schema, spec):
    torch.manual_seed(0)
    return Network(schema, resolve(schema, spec)).eval()


@pytest.mark.slow
@pytest.mark.parametrize("features", [FEATURES, SCALED], ids=["standard", "scaled"])
@pytest.mark.parametrize("target", [CLASS, NUMBER], ids=["class", "number"])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_exported_graph_agrees_with_the_network(spec, target, features):
    schema = Schema(features, target)
    built, x = network(schema, spec), blocks(schema)
    with torch.no_grad():
        if hasattr(built.head, "calibrate"):
            built.head.calibrate(built(x), torch.full((5, 1), 90.0))
        expected = torch.cat(list(built.predict(built(x)).values()), dim=1).numpy()
    session = onnxruntime.InferenceSession(to_onnx(built, schema))
    assert np.isfinite(expected).all()
    scale = next(iter(schema.outputs().values())).scale
    for rows in (slice(0, 5), slice(1, 2), slice(2, 5)):
        sent = {block.name: array[rows].numpy() for block, array in zip(schema.blocks(), x, strict=True)}
        answered = np.concatenate(session.run(list(schema.outputs()), sent), axis=1)
        assert np.abs(answered - expected[rows]).max() < 1e-5 * max(scale, np.abs(expected).max())


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_weight_has_a_gradient(spec):
    schema = Schema(FEATURES, CLASS)
    built, x = network(schema, spec), blocks(schema)
    built.head.loss(built(x), torch.tensor([0, 1, 0, 1, 0])).backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in built.parameters())


@pytest.mark.parametrize("name", ["piecewise", "linear", "spline"])
def test_a_missing_number_differs_from_the_mean(name):
    schema = Schema((FEATURES[0],), CLASS)
    encoder = network(schema, {"encoders": {"number": {"name": name}}}).encoders[0]
    mean = torch.tensor([[FEATURES[0].fitted["mean"]], [math.nan]])
    known, missing = encoder(mean)
    assert missing.isfinite().all() and not torch.allclose(known, missing)


@pytest.mark.parametrize("part", [numbers.Standardize, lambda block: numbers.Pieces(block, 8)])
def test_a_fill_value_replaces_a_missing_number(part):
    (block,) = Schema((FEATURES[0], SCALED[0]), CLASS).blocks()
    fill = SCALED[0].fitted["fill"]
    learned, declared = part(block)(torch.tensor([[math.nan, math.nan]]))[0]
    filled, same = part(block)(torch.tensor([[fill, fill]]))[0]
    assert torch.equal(declared[0], same[0]) and not torch.equal(learned, filled)
    assert numbers.Standardize(block)(torch.tensor([[math.nan, 3.0]]))[0, :, 1].tolist() == [1, 0]


def test_scores_by_hand():
    quantile = Column(
        "x", "number", {}, {"mean": 0.0, "std": 1.0, "knots": [0.0, 1.0, 3.0], "scores": [-2.0, 0.0, 1.0]}
    )
    plain = Column("y", "number", {}, {"mean": 1.0, "std": 2.0, "knots": [0.0, 1.0]})
    (block,) = Schema((quantile, plain), CLASS).blocks()
    x = torch.tensor([-3e38, -1.0, 0.5, 2.0, 3.0, 3e38, math.nan])
    standardized = numbers.Standardize(block)(torch.stack([x, torch.full_like(x, 5.0)], dim=1))
    assert standardized[:, 0].tolist() == [[-2, 0], [-2, 0], [-1, 0], [0.5, 0], [1, 0], [1, 0], [-2, 1]]
    assert standardized[:, 1].tolist() == [[2, 0]] * 7


def test_pieces_by_hand():
    column = Column("x", "number", {}, {"mean": 0.0, "std": 1.0, "knots": [0.0, 1.0, 3.0]})
    (block,) = Schema((column,), CLASS).blocks()
    values = torch.tensor([[-1.0], [0.5], [2.0], [5.0], [math.nan]])
    expected = [[-1, 0, 0], [0.5, 0, 0], [1, 0.5, 0], [1, 2, 0], [0, 0, 0]]
    assert torch.allclose(Pieces(block, 3)(values)[:, 0], torch.tensor(expected), atol=1e-6)


def test_the_members_of_an_ensemble_are_judged_alone_and_answer_together():
    schema = Schema(FEATURES, CLASS)
    built, y = (
        network(schema, SPECS["ensemble"] | {"trunk": {"name": "ensemble", "members": 3, "dropout": 0.0}}),
        [0, 1],
    )
    x = [block[:2] for block in blocks(schema)]
    together, alone = built(x), built.train()(x)
    assert alone.shape == (2, 3, 2) and not torch.allclose(alone[:, 0], alone[:, 1], atol=1e-3)
    assert torch.allclose(alone.mean(1), together, atol=1e-6)
    losses = [built.head.loss(alone[:, member], torch.tensor(y)) for member in range(3)]
    loss = built.head.loss(*of_each_member(alone, torch.tensor(y)))
    assert torch.allclose(loss, torch.stack(losses).mean())
    assert of_each_member(together, torch.tensor(y))[0] is together


def test_an_ensemble_with_splines_contains_the_linear_model():
    schema = Schema((FEATURES[0], FEATURES[2]), NUMBER)
    built = network(schema, {"encoders": {"number": {"name": "spline"}}, "trunk": {"name": "ensemble"}})
    weight = built.head.linear.weight
    with torch.no_grad():
        weight.zero_()
        weight[0, 0] = 2.0  # the first number, standardized
        ages = torch.tensor([[20.0, 5.0], [50.0, 5.0], [80.0, 5.0]])
        low, middle, high = built([ages])[:, 0]
    assert middle - low == pytest.approx(float(high - middle), rel=1e-5)
    assert high - low == pytest.approx(2 * 60 / FEATURES[0].fitted["std"], rel=1e-4)


def test_columns_of_one_block_have_separate_embeddings():
    schema = Schema((FEATURES[1], FEATURES[3]), CLASS)
    encoder = network(schema, {}).encoders[0]
    tokens = encoder(torch.tensor([[2, 2]], dtype=torch.int32))
    assert tokens.shape == (1, 2, 16) and not torch.allclose(tokens[0, 0], tokens[0, 1])


def test_hidden_tokens_get_no_attention():
    torch.manual_seed(0)
    layer, x = Layer(8, 2, 2.0, 0.0).eval(), torch.randn(2, 5, 8)
    hidden = torch.tensor([[False, False, False, True, True]] * 2)
    changed = x.clone()
    changed[:, 3:] = torch.randn(2, 2, 8)
    assert torch.allclose(layer(x, hidden)[:, :3], layer(changed, hidden)[:, :3], atol=1e-6)
    assert torch.allclose(layer(x, hidden)[:, :3], layer(x[:, :3]), atol=1e-6)
    assert not torch.allclose(layer(x)[:, :3], layer(changed)[:, :3], atol=1e-3)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"encoders": {"number": {"name": "embedding"}}}, "the block 'number' holds no codes: give it another encoder"),
        ({"encoders": {"category": {"name": "linear"}}}, "the block 'category' has no fitted mean for each column"),
        ({"trunk": {"name": "transformer", "width": 10, "heads": 4}}, "size 10 does not divide among 4 heads"),
    ],
)
def test_parts_that_do_not_fit_are_an_error(spec, message):
    with pytest.raises(ValueError) as error:
        network(Schema(FEATURES, CLASS), spec)
    assert message in str(error.value)


def test_intervals_hold_the_truth_with_their_coverage():
    head = target_number.Head(NUMBER, 4)
    truth = torch.from_numpy(DRAW.normal(100, 20, (20_000, 1)).astype(np.float32))
    scores = (truth - 100) / 20 + torch.from_numpy(DRAW.standard_t(3, (20_000, 1)).astype(np.float32))
    head.calibrate(scores[:9], truth[:9])
    errors = (scores[:9] - (truth[:9] - 100) / 20).abs().flatten().sort().values
    assert head.halfwidth == pytest.approx(float(errors[7]), rel=1e-5)  # the 8th of 9: 10 * 0.8
    head.calibrate(scores[:2000], truth[:2000])
    low, high = head.predict(scores[2000:])["interval"].unbind(1)
    inside = ((low <= truth[2000:, 0]) & (truth[2000:, 0] <= high)).float().mean()
    assert 0.77 < inside < 0.83
    head.calibrate(scores[:1], truth[:1])  # too few for the coverage: the largest error
    assert head.halfwidth == pytest.approx(float((scores[0] - (truth[0] - 100) / 20).abs()), rel=1e-4)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_the_loss_of_a_regression_is_in_standard_deviations(loss):
    head = target_number.Head(NUMBER, 4, loss=loss)
    scores = torch.tensor([[0.5], [-1.0]])
    truth = head.predict(scores)["value"]
    assert truth[:, 0].tolist() == [110.0, 80.0]
    assert head.loss(scores, truth) == 0
    assert head.loss(scores, truth + 20) == pytest.approx({"mse": 1.0, "mae": 1.0, "huber": 0.5}[loss])


def test_metrics_of_a_regression_agree_with_scikit_learn():
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    truth = DRAW.normal(100, 20, (50, 1)).astype(np.float32)
    predicted = truth + DRAW.normal(0, 5, (50, 1)).astype(np.float32)
    metrics = metrics_of_number.metrics(NUMBER)
    for part in (slice(0, 20), slice(20, 50)):
        metrics.update(torch.from_numpy(predicted[part]), torch.from_numpy(truth[part]))
    values = metrics_of_number.scalars(metrics.compute(), NUMBER)
    assert set(values) == set(metrics_of_number.METRICS)
    assert values["rmse"] == pytest.approx(mean_squared_error(truth, predicted) ** 0.5, rel=1e-5)
    assert values["mae"] == pytest.approx(mean_absolute_error(truth, predicted), rel=1e-5)
    assert values["r2"] == pytest.approx(r2_score(truth, predicted), rel=1e-5)


def test_r2_of_numbers_far_from_zero_and_of_one_number():
    from sklearn.metrics import r2_score

    pascals = replace(NUMBER, fitted=NUMBER.fitted | {"mean": 101325.0})
    truth = DRAW.normal(101325, 5, (500, 1)).astype(np.float32)
    predicted = truth + DRAW.normal(0, 2, (500, 1)).astype(np.float32)
    metrics = metrics_of_number.metrics(pascals)
    metrics.update(torch.from_numpy(predicted), torch.from_numpy(truth))
    assert float(metrics.compute()["r2"]) == pytest.approx(
        r2_score(truth.astype(float), predicted.astype(float)), rel=1e-9
    )
    metrics.reset()
    metrics.update(torch.from_numpy(predicted[:1]), torch.from_numpy(truth[:1]))
    assert np.isnan(metrics_of_number.scalars(metrics.compute(), pascals)["r2"])


def test_the_worst_predictions_come_first():
    predictions, truth = {"value": np.array([[1.0], [9.0], [4.0]])}, np.array([[1.0], [5.0], [5.0]])
    assert samples_of_number.worst(predictions, truth).tolist() == [1, 2, 0]
    assert set(plots_of_number.plots(predictions, truth, NUMBER)) == {"answers", "residuals"}


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_r2_does_not_depend_on_the_unit(unit):
    """torchmetrics treats a sum of squares below 1e-4 as 0, and r2 as 1."""
    target = Column("price", "target_number", {}, {"mean": 0.0, "std": unit})
    truth = torch.tensor([[-1.0], [0.0], [1.0]]) * unit
    metrics = metrics_of_number.metrics(target)
    metrics.update(truth * 0.5, truth)
    assert float(metrics.compute()["r2"]) == pytest.approx(0.75)
    assert metrics_of_number.undefined(truth.numpy(), target) == set()


def test_r2_of_equal_numbers_is_undefined():
    target = Column("price", "target_number", {}, {"mean": 7.0, "std": 2.0})
    equal = torch.full((9, 1), 5.0)
    metrics = metrics_of_number.metrics(target)
    metrics.update(equal + 1, equal)
    assert np.isnan(float(metrics.compute()["r2"]))
    assert (
        metrics_of_number.undefined(equal.numpy(), target)
        == metrics_of_number.undefined(equal[:1].numpy(), target)
        == {"r2"}
    )
