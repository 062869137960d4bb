"""One text for one value: keys of cells and digests of weights hang on every character of it."""

from __future__ import annotations

import hashlib

from benchbox.canonical import canonical, digest


def test_a_value_has_one_text_without_blanks_its_keys_in_order_and_its_letters_as_they_are():
    assert canonical({"b": 1, "a": [1.5, "é", None, True]}) == '{"a":[1.5,"é",null,true],"b":1}'
    assert canonical({"a": {"d": 1, "c": 2}}) == canonical({"a": {"c": 2, "d": 1}})


def test_what_utf_8_cannot_say_is_escaped():
    assert canonical({"file": "\udcff"}) == '{"file":"\\udcff"}'


def test_a_digest_is_that_of_the_text():
    assert digest({"a": "é"}) == hashlib.sha256('{"a":"é"}'.encode()).hexdigest()
