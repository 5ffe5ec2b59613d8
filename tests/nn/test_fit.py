import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from qviz import recipes
from qviz.nn.layers import QuantLinear
from qviz.nn.train import DivergenceError, History, evaluate, fit, load_checkpoint
from qviz.nn.train.announce import quantized as told
from tests.nn.training import CLASSES, Blobs, assert_same_state, config, plain, quantized


def quiet(model, train=None, how=None, **rest):
    train = Blobs() if train is None else train
    return fit(model, train, how or config(), progress=False, **rest)


# what is computed


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nesterov": True, "label_smoothing": 0.1, "schedule": "one-cycle"},
        {"optimizer": "adam", "lr": 0.01, "clip_norm": 0.5, "schedule": "constant"},
    ],
)
def test_it_is_the_loop_that_one_would_write(options):
    how = config(channels_last=False, **options)
    model, twin = plain(), plain()
    history = quiet(model, how=how)
    if how.optimizer == "adam":
        optimizer = torch.optim.Adam(twin.parameters(), weight_decay=1e-4)
    else:
        optimizer = torch.optim.SGD(
            twin.parameters(), lr=1.0, momentum=0.9, weight_decay=1e-4, nesterov=how.nesterov
        )
    losses, rates = [], []
    for epoch in range(3):
        for x, y in Blobs().batches(epoch):
            rates.append(how.lr * how.factor(len(losses), 18))
            optimizer.param_groups[0]["lr"] = rates[-1]
            loss = F.cross_entropy(twin(x), y, label_smoothing=how.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            if how.clip_norm:
                nn.utils.clip_grad_norm_(twin.parameters(), how.clip_norm)
            optimizer.step()
            losses.append(loss.item())
    assert_same_state(model, twin)
    assert history.curve["loss"].tolist() == np.float32(losses).tolist()
    assert history.curve["lr"].tolist() == np.float32(rates).tolist()
    assert history.curve.steps == list(range(1, 19))


def test_quantizers_learn_with_their_own_rate_and_the_loss_falls():
    model = quantized()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    history = quiet(model, how=config(epochs=8))
    assert history.epochs[-1]["train_loss"] < 0.8 * history.epochs[0]["train_loss"]
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    still = quantized()
    quiet(still, how=config(q_optimizer="sgd", q_lr=1e-30))
    own = [name for name in before if "quantizer" in name]
    assert own
    assert all(torch.equal(still.get_parameter(name), before[name]) for name in own)


def test_codebooks_adapt_until_they_are_frozen():
    model = quantized()
    seen = []

    def look(step, history):
        seen.append(model[3].weight_quantizer.codebook.levels.clone())

    quiet(model, how=config(freeze_codebooks=0.5), on_step=look)
    moved = [not torch.equal(a, b) for a, b in itertools.pairwise(seen)]
    assert moved == [True] * 8 + [False] * 9  # steps 2 to 9 of 18 move; from step 10 on they stand


def test_a_codebook_that_the_caller_froze_stays_frozen():
    model = quantized()
    book = model[3].weight_quantizer.codebook
    book.frozen, levels = True, book.levels.clone()
    quiet(model)
    assert torch.equal(book.levels, levels)


def test_rows_hold_exact_figures():
    model = quantized()
    history = quiet(model, val=Blobs(50, 20, train=False, seed=5), test=Blobs(31, 7, train=False, seed=6))
    loss, top1 = history.curve["loss"].astype(float), history.curve["top1"].astype(float)
    for i, row in enumerate(history.epochs):
        assert row["epoch"] == i + 1
        assert row["steps"] == 6 * (i + 1)
        assert row["train_loss"] == pytest.approx(loss[6 * i : 6 * i + 6].mean(), rel=1e-6)
        assert row["train_top1"] == pytest.approx(top1[6 * i : 6 * i + 6].mean(), rel=1e-6)
        assert row["val_samples"] == 50
        assert ("test_top1" in row) == (i == 2)
    last = history.epochs[-1]
    assert last["test_samples"] == 31
    again = evaluate(model, Blobs(31, 7, train=False, seed=6))
    assert (last["test_top1"], last["test_loss"]) == (again["top1"], again["loss"])
    best = max(history.epochs, key=lambda row: row["val_top1"])
    assert history.best == {key: best[key] for key in ("epoch", "steps", "val_top1")}
    assert history.finished
    assert not history.interrupted


def test_the_callers_random_state_is_left_alone():
    torch.manual_seed(4)
    np.random.seed(4)
    state, other = torch.get_rng_state(), np.random.get_state()[1].copy()
    quiet(quantized_keeping_rng())
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == other).all()


def quantized_keeping_rng():
    with torch.random.fork_rng():
        return quantized()


def test_the_result_depends_on_the_seed_and_not_on_the_callers_random_state():
    models = []
    for callers, seed in ((1, 0), (2, 0), (2, 1)):
        model = quantized_keeping_rng()
        torch.manual_seed(callers)
        quiet(model, how=config(seed=seed))
        models.append(model)
    assert_same_state(models[0], models[1])
    assert not torch.equal(models[0][0].weight, models[2][0].weight)


def test_evaluating_and_recording_do_not_change_the_training():
    one, two = quantized(), quantized()
    for model in (one, two):  # a random rounding in eval mode would draw from the global generator
        model.append(Draws())
    quiet(one, how=config(record_every=0))
    quiet(two, how=config(record_every=1), val=Blobs(20, 8, train=False), test=Blobs(20, 8, train=False))
    assert_same_state(one, two)


class Draws(nn.Module):
    def forward(self, x):
        return x + 0.01 * torch.rand_like(x)


def test_modes_are_put_back():
    model = quantized()
    model.eval()
    model[1].train()
    quiet(model)
    assert [m.training for m in model] == [i == 1 for i in range(len(model))]


def test_own_loss():
    one, two = plain(), plain()
    quiet(one, loss=lambda logits, y: 2.0 * F.cross_entropy(logits, y))
    quiet(two)
    assert not torch.equal(one[0].weight, two[0].weight)
    with pytest.raises(ValueError, match="label_smoothing"):
        quiet(plain(), how=config(label_smoothing=0.1), loss=F.cross_entropy)


def test_any_iterable_with_a_length_will_do():
    blobs = Blobs()
    rows = DataLoader(TensorDataset(blobs.x, blobs.y), batch_size=16, shuffle=True, drop_last=True)
    assert len(quiet(plain(), rows).curve) == 18
    with pytest.raises(TypeError, match="generator"):
        quiet(plain(), (pair for pair in rows))


def test_max_steps_stops_within_an_epoch_on_the_same_schedule():
    history = quiet(plain(), how=config(max_steps=8), test=Blobs(12, 6, train=False))
    assert [row["steps"] for row in history.epochs] == [6, 8]
    assert "test_top1" in history.epochs[-1]
    whole = quiet(plain())
    assert history.curve["lr"].tolist() == whole.curve["lr"].tolist()[:8]
    assert history.curve["loss"].tolist() == whole.curve["loss"].tolist()[:8]


# options


def test_bf16_and_channels_last_train_too():
    model = quantized()
    exact = quiet(quantized(), how=config(epochs=4))
    history = quiet(model, how=config(epochs=4, precision="bf16"))
    assert model[0].weight.dtype == torch.float32
    assert model[3].weight.is_contiguous(memory_format=torch.channels_last)
    assert history.curve["loss"].tolist() != exact.curve["loss"].tolist()
    assert history.curve["loss"][-1] == pytest.approx(exact.curve["loss"][-1], abs=0.1)


def test_bf16_reaches_the_layers_and_not_the_evaluation():
    seen = []
    model = plain()
    model[0].register_forward_hook(lambda layer, x, y: seen.append((layer.training, y.dtype)))
    quiet(model, how=config(precision="bf16", max_steps=1), test=Blobs(6, 6, train=False))
    assert seen == [(True, torch.bfloat16), (False, torch.float32)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # inside torch's compiler
def test_a_compiled_net_trains_the_model_itself(tmp_path):
    model, twin = (quantized(dropout=0.0, norm=False) for _ in range(2))
    history = quiet(model, how=config(compile=True), folder=tmp_path)
    eager = quiet(twin)
    np.testing.assert_allclose(history.curve["loss"], eager.curve["loss"], atol=2e-3)
    load_checkpoint(quantized(3, norm=False), tmp_path, "last")
    assert not any("_orig_mod" in name for name in model.state_dict())


# what is said


def test_it_says_what_is_quantized_and_how_long_it_will_take(capsys):
    fit(quantized(), Blobs(), config(), val=Blobs(12, 6, train=False))
    out = capsys.readouterr().out
    assert "1 layer with 576 weights: weights 3 bits (7 levels), inputs 3 bits (8 levels)" in out
    assert "1 layer with 192 weights: weights 4 bits (15 levels), inputs 4 bits (16 levels)" in out
    assert "1 layer in full precision: 0" in out
    assert "3 epochs of 6 steps = 18 steps of 16 images" in out
    assert re.search(r"about \d+ (s|min) left, evaluations not counted \(0\.\d{3} s a step", out)
    assert re.search(r"epoch 3: train loss \d\.\d+, top1 [\d.]+%; val loss \d\.\d+, top1 [\d.]+%", out)
    one = QuantLinear(
        4, 2, weight_quantizer=recipes.daq_weight(1), input_quantizer=recipes.lsq(2, signed=False)
    )
    assert told(one) == ["  1 layer with 8 weights: weights 1 bit (2 levels), inputs 2 bits (4 levels)"]
    assert "\r" not in out  # no bar in a log


def test_it_says_of_how_many_images_a_step_is_only_where_that_is_known(capsys):
    data = [(torch.randn(3, 6, 6), i % CLASSES) for i in range(20)]
    loader = torch.utils.data.DataLoader(data, batch_size=8)
    fit(plain(), list(loader), config(batch_size=64, epochs=1))
    assert "1 epochs of 3 steps = 3 steps\n" in capsys.readouterr().out
    fit(plain(), loader, config(batch_size=8, epochs=1))
    assert "= 3 steps of at most 8 images" in capsys.readouterr().out


def test_nothing_is_said_when_nobody_asked(capsys):
    quiet(quantized())
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    fit(plain(), Blobs(), config())
    out = capsys.readouterr().out
    assert "18/18" in out
    assert "epoch 3, loss" in out


def test_a_long_run_says_a_line_now_and_then_in_a_log(capsys, monkeypatch):
    monkeypatch.setattr("qviz.nn.train.progress.LOG_SECONDS", 0.0)
    fit(plain(), Blobs(), config())
    out = capsys.readouterr().out
    assert re.search(r"step 7/18, epoch 2: loss \d\.\d{3}, top1 [\d.]+%, \d+\.\d min left", out)
    assert "step 1/18" in out
    assert not re.search(r"step [1-5]/18.*left", out)  # the first steps, which may compile, foretell nothing


@pytest.mark.slow
def test_nothing_heavy_is_imported_early():
    code = (
        "import sys, torch; before = set(sys.modules); import qviz.nn.train; "
        "print(sorted({'accelerate', 'tqdm', 'PIL'} & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# what is refused


def test_wrong_calls_are_refused_before_anything_happens(tmp_path):
    model = quantized()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"batches of 16, but config.batch_size is 32"):
        quiet(model, how=config(batch_size=32))
    with pytest.raises(ValueError, match="folder=None"):
        quiet(model, resume=True)
    with pytest.raises(ValueError, match="no batch"):
        quiet(model, [])
    with pytest.raises(ValueError, match="'mps'"):
        quiet(model, device="mps")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            quiet(model, device="cuda")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_uncalibrated_model_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"not calibrated \(3\.weight_quantizer\).*calibrate"):
        quiet(quantized(observe=False), folder=tmp_path)


def test_an_empty_batch_is_no_divergence():
    with pytest.raises(ValueError, match="train gave a batch without samples"):
        quiet(plain(), [(torch.ones(0, 3, 6, 6), torch.ones(0, dtype=torch.int64))])


def test_a_loader_that_ends_early_is_named():
    class Short(Blobs):
        def batches(self, epoch, **how):
            yield from list(super().batches(epoch, **how))[:4]

    with pytest.raises(ValueError, match="6 batches, but epoch 1 ended after 4"):
        quiet(plain(), Short())


# divergence


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_divergence_stops_with_the_last_good_checkpoint(tmp_path, bad):
    def loss(logits, y):
        calls.append(1)
        return F.cross_entropy(logits, y) * (bad if len(calls) == 9 else 1.0)

    calls, model = [], quantized()
    with pytest.raises(DivergenceError, match=r"step 9.*last good checkpoint") as caught:
        quiet(model, loss=loss, folder=tmp_path)
    assert caught.value.step == 9
    assert caught.value.history.curve.steps == list(range(1, 9))
    assert load_checkpoint(quantized(3), tmp_path, "last")["step"] == 6
    assert caught.value.checkpoint.is_dir()
    assert isinstance(caught.value, FloatingPointError)
    assert all(p.isfinite().all() for p in model.parameters())  # the bad gradient was not applied


def test_weights_that_are_no_numbers_are_never_stored(tmp_path):
    def spoil(step, history):
        if step == 12:
            with torch.no_grad():
                model[8].bias[0] = torch.inf

    model = quantized()
    with pytest.raises(DivergenceError, match=r"step 12: 8\.bias is not finite"):
        quiet(model, folder=tmp_path, on_step=spoil)
    assert load_checkpoint(quantized(3), tmp_path, "last")["step"] == 6


@pytest.mark.filterwarnings("ignore:overflow")
def test_too_large_a_rate_is_called_divergence():
    with pytest.raises(DivergenceError):
        quiet(quantized(), how=config(epochs=30, lr=1e30, schedule="constant"))


# interrupts


@pytest.mark.parametrize("step", [3, 6, 11])
def test_ctrl_c_ends_the_run_after_the_step(tmp_path, step, capsys):
    def press(done, history):
        if done == step:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    history = fit(quantized(), Blobs(), config(), folder=tmp_path, on_step=press)
    assert signal.getsignal(signal.SIGINT) is before
    assert history.interrupted
    assert not history.finished
    assert step <= history.steps <= step + 1
    assert load_checkpoint(quantized(3), tmp_path, "last")["step"] == history.steps
    assert "resume=True goes on" in capsys.readouterr().out
    assert History.load(tmp_path).interrupted


def test_ctrl_c_during_an_evaluation_does_not_wait_for_its_end(tmp_path):
    class Slow(Blobs):
        def batches(self, epoch, **how):
            for i, batch in enumerate(super().batches(epoch, **how)):
                if i == 1:
                    os.kill(os.getpid(), signal.SIGINT)
                seen.append(i)
                yield batch

    seen = []
    history = quiet(quantized(), val=Slow(60, 6, train=False), folder=tmp_path)
    assert history.interrupted
    assert seen == [0, 1]
    assert history.epochs == []
    assert load_checkpoint(quantized(3), tmp_path, "last")["step"] == 6


def test_a_second_ctrl_c_ends_the_run_at_once():
    def loss(logits, y):
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            calls.append("not reached")
        return F.cross_entropy(logits, y)

    calls = []
    history = quiet(quantized(), loss=loss)
    assert history.interrupted
    assert history.steps == 3
    assert "not reached" not in calls


def test_an_interrupt_within_a_step_stores_nothing_half(tmp_path):
    def loss(logits, y):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return F.cross_entropy(logits, y)

    calls = []
    assert quiet(quantized(), loss=loss, folder=tmp_path).interrupted
    assert load_checkpoint(quantized(3), tmp_path, "last")["step"] == 6


def test_it_runs_outside_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(quiet(plain())))
    thread.start()
    thread.join()
    assert found[0].finished


# evaluate


def test_evaluate_counts_exactly():
    model = quantized(dropout=0.9)
    model.train()
    loader = Blobs(47, 10, train=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = evaluate(model, loader)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()
    with torch.no_grad():
        logits = model(loader.x)
    order = logits.argsort(1, descending=True)
    assert found["samples"] == 47
    assert found["top1"] == pytest.approx((order[:, 0] == loader.y).double().mean().item())
    assert found["top5"] == pytest.approx((order[:, :5] == loader.y[:, None]).any(1).double().mean().item())
    assert found["loss"] == pytest.approx(F.cross_entropy(logits, loader.y).item(), rel=1e-6)
    assert CLASSES > 5  # else top5 would be 1


def test_evaluate_of_few_classes_and_of_nothing():
    loader = [(torch.randn(4, 3, 6, 6), torch.tensor([0, 1, 0, 1]))]
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 2))
    assert evaluate(model, loader)["top5"] == 1.0
    with pytest.raises(ValueError, match="no image"):
        evaluate(model, [])


def test_a_random_rounding_with_its_own_generator_is_no_obstacle():
    from qviz import Fixed, Quantizer, Stochastic, uniform
    from qviz.nn.layers import QuantLinear

    draw = torch.Generator().manual_seed(3)
    q = Quantizer(uniform(4), Stochastic(generator=draw), range=Fixed(0.1))
    net = nn.Sequential(nn.Flatten(), QuantLinear(108, CLASSES, weight_quantizer=q))
    assert quiet(net).finished


@pytest.mark.parametrize("make", [recipes.lsq, recipes.daq_weight, recipes.dorefa_weight, recipes.pot_weight])
def test_other_recipes_train(make):
    net = quantized()
    net[3].weight_quantizer = make(3).observe(net[3].normalized_weight())
    assert quiet(net, how=config(max_steps=4)).finished


# other targets, outputs and batches


def regression(count=48):
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(count, 4, generator=draw)
    return [(x[i : i + 16], x[i : i + 16].sum(1, keepdim=True)) for i in range(0, count, 16)]


def mse(output, y):
    return F.mse_loss(output, y)


def test_real_targets_train_with_an_own_loss_and_report_no_accuracy():
    data = regression()
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    history = quiet(model, data, config(epochs=20), loss=mse, val=data)
    assert history.epochs[-1]["val_loss"] < 0.2 * history.epochs[0]["val_loss"]
    assert not [key for row in history.epochs for key in row if "top1" in key]
    assert history.best == {key: history.epochs[-1][key] for key in ("epoch", "steps", "val_loss")}
    found = evaluate(model, data, loss=mse)
    assert found == {"loss": history.epochs[-1]["val_loss"], "samples": 48}
    with pytest.raises(ValueError, match=r"targets \(16, 1\), torch.float32, are no classification"):
        quiet(nn.Linear(4, 3), data)


def test_an_own_metric_takes_the_place_of_accuracy(tmp_path):
    def closeness(output, y):
        return (output - y).abs().lt(0.5).float().mean()

    data = regression()
    history = quiet(
        nn.Linear(4, 1), data, config(epochs=4), loss=mse, metric=closeness, val=data, folder=tmp_path
    )
    assert {"train_metric", "val_metric"} <= set(history.epochs[0])
    assert history.best["val_metric"] == max(row["val_metric"] for row in history.epochs)
    again = History.load(tmp_path)
    assert again.curve["metric"].tolist() == history.curve["metric"].tolist()
    assert again.lines("metric").keys() == {"training", "held-out"}
    with pytest.raises(ValueError, match="figure must be 'loss' or 'metric', got 'top1'"):
        again.lines("top1")


def test_soft_targets_have_a_cross_entropy():
    x = torch.eye(3)
    y = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]])
    assert evaluate(nn.Identity(), [(x, y)]) == {
        "loss": pytest.approx(F.cross_entropy(x, y).item()),
        "samples": 3,
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_shares_of_a_thousand_classes_in_half_precision_are_shares(dtype):
    y = torch.randn(64, 1000, generator=torch.Generator().manual_seed(0)).mul(2).softmax(1).to(dtype)
    assert evaluate(nn.Identity(), [(torch.zeros(64, 1000), y)])["samples"] == 64


@pytest.mark.parametrize("shape", [(16,), (16, 1), (16, 3), (16, 3, 4, 4)])
def test_real_targets_of_the_shape_of_scores_are_no_shares(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for y in (x, x.abs(), torch.full_like(x, torch.nan)):
        with pytest.raises(ValueError, match=r"are no classification .*; give loss="):
            evaluate(nn.Identity(), [(x, y)])
    with pytest.raises(ValueError, match=r"targets \(16, 1\), .* are no classification .*; give loss="):
        quiet(nn.Linear(4, 1), regression())


def test_shares_are_looked_at_once_a_run(monkeypatch):
    looks = []
    monkeypatch.setattr("qviz.nn.train.batch.shares", lambda scores, y, *, look: looks.append(look) or True)
    quiet(plain(), [(x, F.one_hot(y, CLASSES).float()) for x, y in Blobs().batches(0)], config(epochs=2))
    assert looks == [True, *[False] * 11]


def test_a_segmentation_counts_shares_of_pixels():
    scores = torch.zeros(2, 3, 4, 4)
    scores[:, 1] = 1.0
    y = torch.ones(2, 4, 4, dtype=torch.int64)
    y[0, :2] = 2
    found = evaluate(nn.Identity(), [(scores, y)])
    assert (found["top1"], found["samples"]) == (0.75, 2)
    assert found["loss"] == pytest.approx(F.cross_entropy(scores, y).item())


def test_places_without_a_class_count_in_no_figure():
    scores = torch.randn(2, 7, 4, 4, generator=torch.Generator().manual_seed(0))
    y = scores.argmax(1)
    y[1] = -100
    y[0, 0] = 0
    found = evaluate(nn.Identity(), [(scores, y)])
    assert found["top1"] == pytest.approx((scores.argmax(1) == y)[0].double().mean().item())
    assert found["loss"] == pytest.approx(F.cross_entropy(scores, y).item())
    rows, classes = scores[:, :, 0].transpose(1, 2).flatten(0, 1), y[:, 0].clone().flatten()
    with_all, with_some = (evaluate(nn.Identity(), [(rows[:n], classes[:n])]) for n in (8, 4))
    assert with_all == with_some | {"samples": 8}


def test_means_are_over_targets_that_have_a_class_whatever_batch_they_are_in():
    """Of 9 targets 5 have a class, two in one batch, three in another and none in the third."""
    scores = torch.randn(9, 7, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, -100, 2, 3, 4, -100, -100, -100])
    loader = [(scores[i : i + 3], y[i : i + 3]) for i in (0, 3, 6)]
    kept = y != -100
    right = (scores.argmax(1) == y)[kept].double().mean().item()
    found = evaluate(nn.Identity(), loader)
    assert found["samples"] == 9
    assert found["top1"] == pytest.approx(right)
    assert found["loss"] == pytest.approx(F.cross_entropy(scores[kept], y[kept]).item())
    mine = evaluate(nn.Identity(), loader, loss=lambda out, y: 2 * F.cross_entropy(out, y))
    assert mine["loss"] == pytest.approx(2 * found["loss"])
    with pytest.raises(ValueError, match="no target of the 3 samples has a class: all are -100"):
        evaluate(nn.Identity(), loader[2:])


def unlabeled(pairs):
    """Take a batch's targets, and some of another's, away."""
    (_, first), (_, second), *_ = pairs
    first[:] = -100
    second[3:] = -100
    return pairs


@pytest.mark.parametrize("own", [None, F.cross_entropy])
@pytest.mark.parametrize("places", [(), (4, 4)])
def test_batches_count_by_their_targets_also_where_one_has_none(own, places):
    draw = torch.Generator().manual_seed(0)
    pairs = [
        (torch.randn(8, 7, *places, generator=draw), torch.randint(7, (8, *places), generator=draw))
        for _ in range(3)
    ]
    scores, y = (torch.cat(t) for t in zip(*unlabeled(pairs), strict=True))
    found, known = evaluate(nn.Identity(), pairs, loss=own), y != -100
    assert found["loss"] == pytest.approx(F.cross_entropy(scores.movedim(1, -1)[known], y[known]).item())
    assert found["top1"] == pytest.approx((scores.argmax(1) == y)[known].double().mean().item())
    assert found["samples"] == 24
    if not places:
        five = scores[known].topk(5).indices == y[known][:, None]
        assert found["top5"] == pytest.approx(five.any(1).double().mean().item())
    hits = evaluate(nn.Identity(), pairs, metric=lambda z, y: (z.argmax(1) == y)[y != -100].double().mean())
    assert hits["metric"] == pytest.approx(found["top1"])
    with pytest.raises(ValueError, match="no target of the 8 samples has a class: all are -100"):
        evaluate(nn.Identity(), pairs[:1], loss=own)


def by_hand(scores, y):
    """A loss whose gradient too is NaN where no target has a class."""
    some = y != -100
    return (F.cross_entropy(scores, y, reduction="none") * some).sum() / some.sum()


@pytest.mark.parametrize(("smoothing", "own"), [(0.0, None), (0.1, None), (0.0, by_hand)])
def test_a_batch_without_targets_teaches_nothing_and_counts_in_no_mean(smoothing, own):
    pairs = unlabeled(list(Blobs().batches(0)))
    model, twin = plain(), plain()
    how = config(epochs=1, channels_last=False, label_smoothing=smoothing)
    row = quiet(model, pairs, how, loss=own).epochs[0]
    optimizer, known, total, right = torch.optim.SGD(twin.parameters(), 0.05, 0.9, weight_decay=1e-4), 0, 0, 0
    for step, (x, y) in enumerate(pairs):
        optimizer.param_groups[0]["lr"] = 0.05 * config().factor(step, len(pairs))
        scores, some = twin(x), y != -100
        loss = 0 * scores.sum()
        if some.any():
            loss = F.cross_entropy(scores[some], y[some], label_smoothing=smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        known, total = known + some.sum(), total + loss.item() * some.sum()
        right += (scores.argmax(1) == y).sum()
    assert row["train_loss"] == pytest.approx((total / known).item(), rel=1e-5)
    assert row["train_top1"] == pytest.approx((right / known).item(), rel=1e-5)


def test_a_teacher_needs_no_targets():
    pairs = [(x, torch.full_like(y, -100)) for x, y in Blobs().batches(0)]
    history = quiet(plain(), pairs, config(epochs=1), teacher=plain(seed=9))
    row = history.epochs[0]
    assert row["train_loss"] == pytest.approx(history.curve["loss"].mean(), rel=1e-6)
    assert row["train_loss"] > 1
    assert "train_top1" not in row


class Keywords(nn.Module):
    """Takes keywords and returns an object, as the models of transformers do."""

    def __init__(self):
        super().__init__()
        self.net = plain()

    def forward(self, *, pixel_values, scale=None):
        scores = self.net(pixel_values if scale is None else pixel_values * scale)
        return types.SimpleNamespace(logits=scores)


class Several(Keywords):
    def forward(self, x, scale):
        return {"out": self.net(x * scale)}


@pytest.mark.parametrize(
    ("make", "batch"),
    [
        (Keywords, lambda x, y: {"pixel_values": x, "labels": y}),
        (Several, lambda x, y: ((x, torch.ones(len(x), 1, 1, 1)), y)),
        (plain, lambda x, y: [x, y]),
    ],
)
def test_batches_of_every_kind_train_alike(make, batch):
    pairs = list(Blobs().batches(0))
    twin, model = plain(), make()
    inner = getattr(model, "net", model)
    inner.load_state_dict(twin.state_dict())
    quiet(twin, pairs)
    history = quiet(model, [batch(x, y) for x, y in pairs], val=[batch(x, y) for x, y in pairs])
    assert_same_state(inner, twin)
    assert history.epochs[-1]["val_top1"] == evaluate(twin, pairs)["top1"]


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ({"x": torch.ones(2, 3)}, "needs one of the keys labels, .*, got x"),
        ((torch.ones(2, 3),) * 3, "got tuple of 3"),
        (torch.ones(2, 3), "got Tensor"),
    ],
)
def test_other_batches_are_refused_in_a_sentence(batch, says):
    with pytest.raises(TypeError, match=says):
        evaluate(nn.Identity(), [batch])


def test_a_network_without_scores_asks_for_a_loss():
    model = Keywords()
    model.forward = lambda x: types.SimpleNamespace(boxes=x)
    with pytest.raises(TypeError, match="SimpleNamespace without logits or out; give loss="):
        evaluate(model, [(torch.ones(2, 3), torch.ones(2, dtype=torch.int64))])


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_a_teacher_is_learned_from(share):
    model, twin, teacher = plain(), plain(), nn.Sequential(nn.Dropout(0.5), plain(seed=9))
    kept = {name: value.clone() for name, value in teacher.state_dict().items()}
    teacher.train()
    pairs = list(Blobs().batches(0))
    history = quiet(model, pairs, config(epochs=1, channels_last=False), teacher=teacher, teacher_share=share)
    alone = teacher[1]  # without dropout, as in eval mode
    losses, optimizer = [], torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    for step, (x, y) in enumerate(pairs):
        optimizer.param_groups[0]["lr"] = 0.05 * config().factor(step, len(pairs))
        scores, goal = twin(x), alone(x).softmax(1).detach()
        loss = share * -(goal * scores.log_softmax(1)).sum(1).mean() + (1 - share) * F.cross_entropy(
            scores, y
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert history.curve["loss"].tolist() == pytest.approx(losses, rel=1e-5)
    assert all(module.training for module in teacher.modules())
    assert all(torch.equal(value, kept[name]) for name, value in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


def test_a_model_is_not_its_own_teacher():
    model = plain()
    with pytest.raises(ValueError, match="another network"):
        quiet(model, teacher=model)
    with pytest.raises(ValueError, match=r"teacher_share must be in \[0, 1\], got 2"):
        quiet(model, teacher=plain(), teacher_share=2)
