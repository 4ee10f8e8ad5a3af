import logging
import os
import subprocess
import sys
import textwrap

import pytest
import torch

from curvelens import jobs
from curvelens.errors import ConfigError


def run(tmp_path, body, threads=1):
    """Run a script as the workflow does; gives the process and the text of its log."""
    log = tmp_path / "logs" / "job.log"
    script = tmp_path / "job.py"
    start = f"from curvelens import jobs\nlog = jobs.start({str(log)!r}, {threads})\n"
    script.write_text(start + textwrap.dedent(body))
    process = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    return process, log.read_text()


def test_an_error_of_curvelens_is_one_line(tmp_path):
    process, log = run(
        tmp_path,
        """
        from curvelens.errors import DataError
        raise DataError("set.npz: damaged; delete it and run again")
        """,
    )
    assert process.returncode == 1
    assert process.stderr == "curvelens: error: set.npz: damaged; delete it and run again\n"
    assert process.stderr.strip() in log
    assert "Traceback" in log


def test_an_unexpected_error_is_one_line_that_names_the_log(tmp_path):
    process, log = run(tmp_path, "print('out')\n{}['key']")
    assert process.returncode == 1
    assert process.stdout == "out\n"
    assert process.stderr.count("\n") == 1
    assert process.stderr.startswith("curvelens: error: unexpected KeyError: 'key'; the traceback is in ")
    assert "job.log" in process.stderr
    assert "Traceback" in log


def test_messages_and_warnings_reach_the_log_and_stderr(tmp_path):
    process, log = run(
        tmp_path,
        """
        import logging, warnings
        log.info("42 images")
        logging.getLogger("curvelens.progress").info("half way")
        logging.getLogger("somebody.else").info("chatter")
        warnings.warn("the Hessian is zero", stacklevel=1)
        """,
    )
    assert process.returncode == 0
    for text in (process.stderr, log):
        assert "42 images" in text
        assert "half way" in text
        assert "the Hessian is zero" in text
        assert "chatter" not in text


def test_threads_hold_for_a_torch_that_is_loaded_later(tmp_path):
    process, _ = run(tmp_path, "import torch\nprint(torch.get_num_threads())", threads=1)
    assert process.stdout == "1\n"


def test_threads_hold_for_a_torch_that_is_loaded_already(monkeypatch):
    for name in jobs._THREAD_VARIABLES:
        monkeypatch.setenv(name, "9")
    before = torch.get_num_threads()
    try:
        jobs.set_threads(3)
        assert torch.get_num_threads() == 3
        assert {os.environ[name] for name in jobs._THREAD_VARIABLES} == {"3"}
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ConfigError, match="threads: 0"):
        jobs.set_threads(0)


def test_progress_reports_rate_and_remaining_time(caplog, monkeypatch):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(jobs.time, "monotonic", lambda: float(next(clock)))
    with caplog.at_level(logging.INFO, logger="curvelens.progress"):
        assert list(jobs.progress("abcde", "letters", "letter")) == list("abcde")
    # The clock is read at the start and once an item, 4 s apart: lines after 12 s and, the last, after 20 s.
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("letters: ")
    assert "3/5 [00:12<00:08,  4.00s/letter]" in lines[0]
    assert "5/5 [00:20<00:00,  4.00s/letter]" in lines[1]
