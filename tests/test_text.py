"""Text of others: no password is shown, nothing acts on a terminal or a spreadsheet, names have a grammar."""

import csv
import io
import json
import os
import subprocess
import sys
import time

import pytest

from benchbox import provenance
from benchbox.canonical import canonical
from benchbox.cli import main
from benchbox.cli.console import one_line, output, spell_out
from benchbox.errors import RequestError
from benchbox.text import check_name, check_words, masked, masked_record, printable, spelt, spreadsheet_text

SECRET = "hunter2"
URLS = [
    f"postgresql://me:{SECRET}@host/db",
    f"postgresql+psycopg://me:{SECRET}@host:5432/db?sslmode=require",
    f"postgresql://me:{SECRET}@@host/db",
    f"postgresql://me:{SECRET}/{SECRET}@host/db",
    f"postgresql://me:{SECRET}?{SECRET}@host/db",
    f"postgresql://me:{SECRET}#{SECRET}@host/db",
    f"postgresql://me:a {SECRET} b@host/db",
    f"postgresql://:{SECRET}@host/db",
    f"postgresql://me:{SECRET}@host:port/db",
    f"postgresql://me:{SECRET}",
    f"postgresql://me:{SECRET}/db",
    f"postgresql://me%3A{SECRET}@host/db",
    f"postgresql://me:{SECRET}%40host/db",
    f"postgresql:://me:{SECRET}@host/db",
    f"postgresql:/me:{SECRET}@host/db",
    f"me:{SECRET}@host/db",
    f"://me:{SECRET}@host",
    f"postgresql://host/db?user=me&password={SECRET}",
    f"postgresql://host/db?PASSWORD={SECRET}&user=me",
    f"postgresql://host/db?pass%77ord={SECRET}",
    f"postgresql://host/db?sslpassword={SECRET}",
    f"host=h password={SECRET} dbname=d",
    f"--store=postgresql://me:{SECRET}@host/db",
    f"mysql://me:{SECRET}@[::1]:3306/db?passwd={SECRET}",
]


@pytest.mark.parametrize("url", URLS)
def test_no_password_is_left(url, monkeypatch):
    assert SECRET not in masked(url)
    assert "***" in masked(url)
    assert masked(masked(url)) == masked(url)
    assert SECRET not in one_line(f"cannot reach {url}; check it")
    monkeypatch.setattr(sys, "argv", ["benchbox", "run", "--store", url])
    assert SECRET not in str(provenance.collect("cpu")["command"])
    assert SECRET not in str(masked_record({"command": ["run", url], "more": {"where": url}}))


COMMANDS = [(url, ["report"]) for url in URLS if "://" in url]
COMMANDS += [(URLS[0], words) for words in (["show", "abcd1234"], ["doctor"], ["list", "runs"], ["list", "cells"])]


@pytest.mark.parametrize(("url", "command"), COMMANDS)
def test_no_command_says_a_password(url, command, empty_workspace, capsys):
    main([*command, "--store", url])
    assert SECRET not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "harmless",
    [
        "results/benchbox.sqlite",
        "C:\\data\\store.sqlite",
        "postgresql://host:5432/db",
        "postgresql://me@host/db?sslmode=require",
        "https://arxiv.org/abs/1706.06083",
        "defenses/mine.py:Mine",
        "--set pssr.alpha=1.5",
        "--set vit.tokens=64 --set pgd.passes=3",
        "error: 3 of 4 at 12:30:01",
    ],
)
def test_what_holds_no_password_stays(harmless):
    assert masked(harmless) == harmless


@pytest.mark.parametrize(
    "code", ["\x1b[31m", "\x07", "\x00", "\u202e", "\u2066", "\u200b", "\r", "\x9b", "\u2028"]
)
def test_control_characters_are_shown_and_not_sent(code, capsys):
    assert code[0] not in printable(f"a{code}b")
    assert printable(f"a{code}b").startswith("a\\")
    from rich.table import Table

    table = Table()
    table.add_column(f"x{code}")
    table.add_row(f"y{code}")
    output().print(table, f"z{code}")
    assert code[0] not in capsys.readouterr().out
    with pytest.raises(RequestError) as caught:
        check_words("origin", f"a{code}b")
    assert code[0] not in str(caught.value)


@pytest.mark.parametrize("text", ["x" * 100_000 + ":", "a-" * 50_000 + ":", "x=" * 50_000, "://a:" * 20_000 + "@"])
def test_a_text_without_end_is_read_at_once(text):
    start = time.process_time()
    masked(text)
    assert time.process_time() - start < 2


def test_an_endless_message_keeps_its_remedy():
    line = one_line("x" * 100_000 + "; mend it")
    assert len(line) < 3100
    assert line.endswith("; mend it")


def test_bytes_that_are_no_text_can_be_recorded():
    assert canonical("\udcff") == r'"\udcff"'
    assert json.loads(canonical(["\udcff", "ü"])) == ["\udcff", "ü"]


def test_line_feeds_and_all_languages_stay():
    assert printable("ε ≤ 8/255\n\tPSSR — 防御") == "ε ≤ 8/255\n\tPSSR — 防御"


@pytest.mark.parametrize("formula", ["=1+1", "+1+1", "-1+1", "@SUM(A1)", " =1", "\t=1", "＝1"])
def test_a_formula_is_text(formula):
    out = io.StringIO()
    csv.writer(out).writerow([spreadsheet_text(formula)])
    assert next(csv.reader([out.getvalue()]))[0].startswith("'")


@pytest.mark.parametrize("value", [-1.5, "-1.5", "+2", "1e-3", "pssr", "", None, "a=b"])
def test_numbers_and_words_are_no_formulas(value):
    assert spreadsheet_text(value) == value


@pytest.mark.parametrize("name", ["pssr", "pgd-at", "autoattack", "my_defense2", "ResNet.18+x", "0"])
def test_names(name):
    assert check_name("defence", name) == name


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "../a", "a/b", "=1", "-x", "a\x1b", "a\n", "<b>", "a;b", "é", "x" * 81]
)
def test_no_names(name):
    with pytest.raises(RequestError, match="is no name for a defence; use") as caught:
        check_name("defence", name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_what_an_encoding_lacks_is_spelt(monkeypatch):
    assert spelt("L∞ ε ≥ 4 – Müller’s, 中") == "Linf eps >= 4 - Muller's, \\u4e2d"
    for encoding, written in (("ascii", "Linf, Muller"), ("cp1252", "Linf, Müller"), ("utf-8", "L∞, Müller")):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
        spell_out()
        sys.stdout.write("L∞, Müller")
        sys.stdout.flush()
        assert raw.getvalue().decode(encoding) == written


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a file that is always full")
def test_an_output_that_takes_no_more_is_one_line():
    command = [sys.executable, "-m", "benchbox", "list", "datasets"]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == (
        "benchbox: error: no more can be written (No space left on device); make room, and run the same command "
        "again\n"
    )
