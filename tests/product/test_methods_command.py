"""``expunge methods``: the table, and what a person should know of one method before using it."""

from __future__ import annotations

from dataclasses import fields

from expunge.methods import registry
from expunge.methods.describing import described


def test_every_method_says_what_it_does_and_has_every_setting_in_words():
    for name in registry.BUILTIN:
        found = described(name)
        kind = registry.load(name)
        assert found["summary"] and found["guarantee"] and "``" not in found["summary"] + found["guarantee"], name
        settings = {each["name"]: each for each in found["settings"]}
        assert [*settings] == [field.name for field in fields(kind) if field.init], name
        made = registry.settings_of(kind()) if not any(each["required"] for each in found["settings"]) else None
        for each in settings.values():
            assert each["allowed"] and "``" not in each["meaning"], (name, each)
            if made is not None and each["name"] in made["settings"]:
                assert each["default"] == made["settings"][each["name"]], (name, each)


def test_meanings_are_those_of_the_docstring_and_of_what_a_class_is_built_from():
    settings = {each["name"]: each for each in described("npo")["settings"]}
    assert settings["beta"]["meaning"].startswith("0.1 (OpenUnlearning, arXiv 2506.12618)")  # its own
    assert settings["lora"]["meaning"].startswith("settings of PEFT's LoraConfig")  # of LanguageMethod
    assert settings["beta"]["allowed"] == "a finite number above 0" and settings["beta"]["default"] == 0.1


def test_the_command_prints_it_for_people_and_for_machines_and_refuses_an_unknown_name(cli):
    shown = cli("methods", "salun")
    assert shown.code == 0 and "density (a finite number above 0 and at most 1; default 0.5)" in shown.out
    assert {"summary", "guarantee", "settings", "kinds", "needs"} <= cli("methods", "salun", "--json").json.keys()
    unknown = cli("methods", "salum")
    assert unknown.code == 2 and "salun" in unknown.err and not unknown.out
