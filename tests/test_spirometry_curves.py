"""Simulated exhalations against closed forms, recorded ones against hand-made files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.optimize import minimize_scalar

from curvelens import spirometry
from curvelens.errors import ConfigError, DataError
from curvelens.spirometry import INTERVAL, SAMPLES, Effort

WAVEFORMS = Path(__file__).resolve().parents[2] / "shared" / "data" / "spirometry_waveforms_26"
TIME = np.arange(0, 15, 0.002)


def single(volume=4.0, constant=0.5, rise=0.06, **changes):
    return Effort((volume, 0.0), (constant, 1.0), rise, **changes)


def test_emptying_solves_its_differential_equation():
    v, tau, rise = 3.0, 0.5, 0.06

    def rate(t, state):  # the drive sets in with `rise`; what is left flows out with `tau`
        drive, emptied = state
        return [(1 - drive) / rise, (v * drive - emptied) / tau]

    solved = solve_ivp(rate, (0, 3), [0.0, 0.0], rtol=1e-10, atol=1e-12, t_eval=TIME[TIME <= 3])
    ours = spirometry.emptied(solved.t, v, tau, rise)
    assert np.abs(ours - solved.y[1]).max() < 1e-8
    blown, _ = quad(lambda t: spirometry.flow(np.array(t), v, tau, rise), 0, 1)
    assert blown == pytest.approx(spirometry.emptied(np.array(1.0), v, tau, rise), rel=1e-10)
    # Without the delay it is exponential emptying.
    at_once = spirometry.emptied(TIME, v, tau, 1e-9)
    assert np.abs(at_once - v * (1 - np.exp(-TIME / tau))).max() < 1e-7


def test_indices_of_one_compartment_in_closed_form():
    v, tau, r = 4.0, 0.5, 0.06

    def emptied(t):
        return v * (1 - (tau * np.exp(-t / tau) - r * np.exp(-t / r)) / (tau - r))

    def slope(t):
        return (emptied(t + 0.04) - emptied(t - 0.04)) / 0.08

    found = spirometry.measure(TIME, single(v, tau, r).clean(TIME))
    steepest = minimize_scalar(lambda t: -slope(t), bounds=(0.05, 0.4), method="bounded").x
    zero = steepest - emptied(steepest) / slope(steepest)
    # The steepest time is known to within the 2 ms grid, where d(zero)/dt = 1 − V'/slope is below a tenth.
    assert found.time_zero == pytest.approx(zero, abs=2e-4)
    assert found.peak_flow == pytest.approx(slope(steepest), rel=1e-4)
    assert found.fev1 == pytest.approx(emptied(1 + zero), abs=3e-4)
    assert found.fvc == pytest.approx(v, rel=1e-10)
    assert found.extrapolated_volume == pytest.approx(emptied(zero), abs=2e-3)
    # The textbook's ratio for a time constant, 1 − e^{−1/τ}, up to the onset.
    assert found.fev1 / found.fvc == pytest.approx(1 - np.exp(-1 / tau), abs=0.01)


def test_undisturbed_curves_hold_their_fev1_and_never_fall():
    made = spirometry.simulate(40, cough_share=0.0, seed=3)
    assert made.volumes.shape == (40, SAMPLES)
    assert made.volumes.dtype == np.float32
    assert (np.diff(made.volumes, axis=1) >= 0).all()
    for index, effort in enumerate(made.efforts):
        assert effort.coughs == ()
        zero = made.time_zero[index]
        # The best effort: its volume one second after time zero is the target, by the formula.
        at, rise = 1 + zero, effort.rise
        expected = sum(
            v * (1 - (t * np.exp(-at / t) - rise * np.exp(-at / rise)) / (t - rise))
            for v, t in zip(effort.volumes, effort.constants, strict=True)
        )
        # measure() interpolates linearly on a 2 ms grid: h²/8 · |V''| < 1e-5 L.
        assert made.fev1[index] == pytest.approx(expected, abs=2e-5)


def test_a_cough_stops_the_volume_and_the_transient_makes_up_for_part_of_it():
    coughs = ((0.6, 0.4, 0.1, 1.5),)
    volume = single(coughs=coughs).disturbed(TIME)
    still = (TIME >= 0.6) & (TIME <= 1.0)
    assert np.ptp(volume[still]) == 0
    assert volume[still][0] == pytest.approx(single().clean(np.array([0.6]))[0], rel=1e-12)
    flows = np.gradient(volume, TIME)
    before, after = flows[np.searchsorted(TIME, [0.59, 1.05])]
    clean = np.gradient(single().clean(TIME), TIME)
    # In the burst the clock runs 2.5 times as fast: at 1.05 s it shows 0.6 + 0.05 · 2.5.
    assert after == pytest.approx(2.5 * clean[np.searchsorted(TIME, 0.725)], rel=0.01)
    assert after > before
    # Afterwards it is the clean effort, late by the plateau less what the burst gained.
    later = TIME > 1.2
    assert volume[later] == pytest.approx(single().clean(TIME[later] - 0.4 + 0.1 * 1.5), rel=1e-12)
    assert (np.diff(volume) >= 0).all()


def test_coughing_curves_have_their_plateaus_where_they_say():
    made = spirometry.simulate(60, cough_share=1.0, seed=1)
    time = INTERVAL * np.arange(SAMPLES)
    for index in range(len(made.ids)):
        assert made.efforts[index].coughs
        assert (np.diff(made.volumes[index]) >= -1e-6).all()  # float32
        for start, stop in made.plateaus(index):
            still = made.volumes[index][(time >= start) & (time <= stop)]
            assert np.ptp(still) <= 1e-6 * still.max() if len(still) else stop < 0 or start > 14.9


def test_coughs_only_delay_and_weaker_efforts_only_scale():
    made = spirometry.simulate(30, cough_share=1.0, seed=5)
    for index, effort in enumerate(made.efforts):
        capacity = sum(effort.volumes)
        assert made.volumes[index].max() <= effort.effort * capacity * (1 + 1e-6)
        assert 0.25 * capacity < made.fev1[index] < capacity


def test_a_curve_depends_on_its_name_and_the_seed_alone():
    few, many = spirometry.simulate(5, seed=2), spirometry.simulate(9, seed=2)
    assert np.array_equal(few.volumes, many.volumes[:5])
    assert few.ids[3] == "simulated/00003"
    assert not np.array_equal(few.volumes, spirometry.simulate(5, seed=4).volumes)
    assert not np.array_equal(few.volumes, spirometry.simulate(5, seed=2, name="other").volumes)
    # The share of coughs changes whether there are any, not who coughs otherwise.
    none = spirometry.simulate(5, seed=2, cough_share=0.0)
    assert [effort.volumes for effort in none.efforts] == [effort.volumes for effort in few.efforts]


def test_simulated_values_are_those_of_people():
    made = spirometry.simulate(300, seed=0)
    assert made.fev1.min() > 0.3
    assert made.fev1.max() < 6.5
    first = np.array([effort.first_cough for effort in made.efforts])
    assert np.isinf(first).mean() == pytest.approx(0.1, abs=0.06)  # 3 standard errors of 300 draws
    flows = [spirometry.measure(TIME, effort.clean(TIME)).peak_flow for effort in made.efforts]
    assert min(flows) > 0.5
    assert max(flows) < 16
    with pytest.raises(ConfigError, match="share"):
        spirometry.simulate(3, cough_share=1.5)


def write_waveform(folder, name, flow):
    (folder / f"{name}.txt").write_text("\n".join(f"  {value:.6f}" for value in flow))


def test_waveforms_are_integrated_and_started_at_time_zero(tmp_path):
    effort = single(5.0, 0.6, 0.05)
    time = 0.002 * np.arange(2000)
    lag = 0.3
    write_waveform(tmp_path, "10", spirometry.flow(time - lag, 5.0, 0.6, 0.05))
    write_waveform(tmp_path, "9", spirometry.flow(time, 2.0, 0.6, 0.05))
    found = spirometry.read_curves(tmp_path)
    assert found.ids == ["9", "10"]
    assert found.failures == {}
    truth = spirometry.measure(time, effort.clean(time))
    # The trapezoidal rule: the flow is given to 1e-6 L/s over 4 s and bends by h²/12 per step.
    assert found.indices[1].time_zero == pytest.approx(truth.time_zero + lag, abs=5e-4)
    assert found.indices[1].fev1 == pytest.approx(truth.fev1, abs=1e-3)
    grid = truth.time_zero + INTERVAL * np.arange(SAMPLES)
    inside = grid + lag < 3.99
    assert np.abs(found.volumes[1] - effort.clean(grid))[inside].max() < 3e-3
    # The recording ends at 4 s; its last volume is held.
    assert np.ptp(found.volumes[1][~inside][1:]) == 0
    assert found.volumes.shape == (2, SAMPLES)


def long_format(**curves):
    time = 0.01 * np.arange(400)
    parts = []
    for name, change in curves.items():
        part = pd.DataFrame({"id": name, "time_s": time, "volume_l": single().clean(time)})
        parts.append(change(part) if change else part)
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_in_long_format(tmp_path, suffix):
    table = long_format(a=None, b=lambda part: part.assign(volume_l=part["volume_l"] / 2 + 0.3))
    path = tmp_path / f"mine{suffix}"
    table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    found = spirometry.read_curves(path)
    time = table["time_s"][:400].to_numpy()
    truth = spirometry.measure(time, single().clean(time))
    assert found.ids == ["a", "b"]
    assert found.indices[0].fev1 == pytest.approx(truth.fev1, rel=1e-9)
    assert found.indices[1].fev1 == pytest.approx(truth.fev1 / 2, rel=1e-9)  # a baseline does not count
    assert found.volumes[0, 20] == pytest.approx(truth.fev1, rel=1e-6)


def test_flows_in_long_format(tmp_path):
    table = long_format(a=None)
    table["flow_l_s"] = spirometry.flow(table["time_s"].to_numpy(), 4.0, 0.5, 0.06)
    table.drop(columns="volume_l").to_csv(tmp_path / "mine.csv", index=False)
    found = spirometry.read_curves(tmp_path)
    assert found.indices[0].fvc == pytest.approx(4.0, rel=2e-3)  # 4 s are eight time constants


def spoilt(**changes):
    return lambda part: part.assign(**{name: change(part) for name, change in changes.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda part: part.iloc[::-1], "does not increase from 3.99 to 3.98"),
        (
            lambda part: part.assign(volume_l=part["volume_l"].where(part.index != 7)),
            "sample 8 has no number",
        ),
        (lambda part: part.iloc[:60], "too short for FEV1"),
        (lambda part: part.iloc[:3], "lasts 0.02 s, too short"),
        (spoilt(volume_l=lambda part: part["volume_l"] * 1000), "implausible in L; divide mL"),
        (spoilt(volume_l=lambda part: -part["volume_l"]), "implausible in L"),
        (spoilt(time_s=lambda part: part["time_s"] * 1000), "time_s in seconds"),
        (
            spoilt(time_s=lambda part: part["time_s"].astype(str).where(part.index != 3, "x")),
            "sample 4 has no",
        ),
    ],
)
def test_one_bad_curve_spoils_one_curve(tmp_path, change, message):
    long_format(good=None, bad=change).to_csv(tmp_path / "mine.csv", index=False)
    found = spirometry.read_curves(tmp_path / "mine.csv")
    assert found.ids == ["good"]
    assert message in found.failures["bad"]
    assert found.failures["bad"].startswith("curve bad: ")
    assert "\n" not in found.failures["bad"]


def test_bad_waveforms(tmp_path):
    flow = spirometry.flow(0.002 * np.arange(2000), 4.0, 0.5, 0.06)
    write_waveform(tmp_path, "good", flow)
    write_waveform(tmp_path, "litres_a_minute", 60 * flow)
    write_waveform(tmp_path, "hole", np.where(np.arange(2000) == 9, np.nan, flow))
    (tmp_path / "prose.txt").write_text("no numbers")
    (tmp_path / "empty.txt").write_text("")
    found = spirometry.read_curves(tmp_path)
    assert found.ids == ["good"]
    assert "divide L/min by 60" in found.failures["litres_a_minute"]
    assert "sample 10 has no number" in found.failures["hole"]
    assert "not a list of numbers" in found.failures["prose"]
    assert "lasts 0.00 s" in found.failures["empty"]


def test_bad_files(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        spirometry.read_curves(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no curves"):
        spirometry.read_curves(tmp_path)
    table = long_format(a=None)
    for column, named in (("id", "id"), ("time_s", "time_s"), ("volume_l", "volume_l or flow_l_s")):
        table.drop(columns=column).to_csv(tmp_path / "mine.csv", index=False)
        with pytest.raises(DataError, match=f"no column {named}"):
            spirometry.read_curves(tmp_path)
    table.to_csv(tmp_path / "mine.csv", index=False)
    table.to_csv(tmp_path / "twice.csv", index=False)
    with pytest.raises(DataError, match="two curves are called 'a'"):
        spirometry.read_curves(tmp_path)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match="not readable"):
        spirometry.read_curves(tmp_path / "broken.parquet")
    long_format(a=lambda part: part.iloc[:5]).to_csv(tmp_path / "short.csv", index=False)
    with pytest.raises(DataError, match="no curve can be used; curve a: "):
        spirometry.read_curves(tmp_path / "short.csv")


@pytest.mark.skipif(not WAVEFORMS.is_dir(), reason="the recorded test waveforms are not on this machine")
def test_the_recorded_waveforms():
    found = spirometry.read_curves(WAVEFORMS)
    assert found.ids == [str(number) for number in range(1, 27)]
    assert found.failures == {}
    for name, indices, volume in zip(found.ids, found.indices, found.volumes, strict=True):
        flow = np.loadtxt(WAVEFORMS / f"{name}.txt")
        # By hand: a Riemann sum, one second from the indices' own time zero.
        total = np.cumsum(flow) * 0.002
        at = round((indices.time_zero + 1) / 0.002)
        assert indices.fev1 == pytest.approx(total[at], abs=0.012)  # one sample of the largest flow
        assert indices.fvc == pytest.approx(total.max(), abs=1e-3 * total.max())
        assert 0.8 * flow.max() < indices.peak_flow <= flow.max()
        assert 0.5 < indices.fev1 / indices.fvc < 1
        assert 0.9 < indices.fev1 < 6.1
        assert volume[20] == pytest.approx(indices.fev1, rel=1e-6)
        assert volume[-1] == pytest.approx(indices.fvc, rel=1e-3)
