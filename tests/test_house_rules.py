"""The house rules for code that a program can check. Each failure says where, and what to do about it."""

from __future__ import annotations

import ast
import subprocess
import sys
from typing import TypeGuard

from tests.house_rules.patterns import keeps_each_repetition, patterns_of, why_slow
from tests.house_rules.report import report
from tests.house_rules.sources import ROOT, FunctionNode, Source, called_name, is_in, python_files

# --- the limits and the tables ---------------------------------------------------------------------------------------

SHIPPED = ("aiqueue", "actors", "serve")
FILE_LINES = dict.fromkeys(SHIPPED, 350) | {"tests": 400, "benchmarks": 400}
FUNCTION_LINES = 50

# Which files of aiqueue/ may import what lies above it. All else there works without a cluster: in a unit test, in a
# client without Ray, in a queue on something other than Ray.
WHO_MAY_IMPORT = {
    "ray": {"aiqueue/client/ray_transport.py", "aiqueue/launch.py", "aiqueue/orchestrator/ray_tasks.py"},
    "actors": {"aiqueue/launch.py"},
    "serve": {"aiqueue/launch.py"},
}

# The pure core: no I/O, clock, random draw, thread or log, so that the same commands give the same queue everywhere and
# after every restart. A new entry must be as pure; what needs a clock takes `now` as a value instead.
PURE = (
    "aiqueue/engine",
    "aiqueue/protocol.py",
    "aiqueue/errors/",
    "aiqueue/encodable.py",
    "aiqueue/levels.py",
    "aiqueue/scaling/",
    "aiqueue/versions.py",
)
PURE_MAY_IMPORT = {
    *("aiqueue.engine", "aiqueue.protocol", "aiqueue.errors", "aiqueue.encodable", "aiqueue.levels", "aiqueue.scaling"),
    "aiqueue.journal_info",
    "aiqueue.versions",
    *("__future__", "abc", "bisect", "collections", "copy", "dataclasses", "enum", "functools", "hashlib", "heapq"),
    *("itertools", "json", "math", "operator", "re", "types", "typing"),
    "msgspec",
    "aiqueue.cron",  # the same line, zone and time give the same next time; it reads the time zone database, once
}
# The first has the rule. The second asks bytes. The third reads numbers as llama.cpp's translator does, by int().
MAY_ASK_FOR_DIGITS = {"aiqueue/texts.py", "serve/limits.py", "aiqueue/schema_limits.py"}
MAY_KEEP_REPETITIONS = {"aiqueue/providers/redact.py"}  # it looks at 8,000 characters of a text
IMPURE_BUILTINS = {"open", "print", "input", "exec", "eval"}


# --- what may import what --------------------------------------------------------------------------------------------


def test_the_core_imports_no_ray_and_nothing_above_it() -> None:
    report(
        (
            f"{source}: imports {module}"
            for source in python_files("aiqueue")
            for module in sorted(source.imports)
            for package, allowed in WHO_MAY_IMPORT.items()
            if is_in(module, package) and str(source) not in allowed
        ),
        "Only the files in WHO_MAY_IMPORT may: take it as an argument, or go through the client's transport.",
    )


def test_importing_the_core_loads_no_ray() -> None:
    # What the rule above can't see: a library that imports Ray in turn.
    skipped = {*WHO_MAY_IMPORT["ray"], "aiqueue/__main__.py"}
    modules = [_module_name(source) for source in python_files("aiqueue") if str(source) not in skipped]
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    loaded = {'ray', 'actors', 'serve'} & sys.modules.keys()\n"
        "    assert not loaded, f'import {name} loads {loaded}'\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, *modules], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, (
        f"{run.stderr}\nImport it inside the function that needs it, in a file of WHO_MAY_IMPORT."
    )


def test_the_pure_core_imports_only_what_is_pure() -> None:
    report(
        (
            f"{source}: imports {module}"
            for source in _pure_sources()
            for module in sorted(source.imports)
            if not any(is_in(module, allowed) for allowed in PURE_MAY_IMPORT)
        ),
        "Take time, draws and ids as values and give effects back; or, if it is pure, add it to PURE_MAY_IMPORT.",
    )


def test_the_pure_core_does_no_io() -> None:
    report(
        (
            f"{source}:{call.lineno}: calls {called_name(call)}"
            for source in _pure_sources()
            for call in source.calls
            if called_name(call) in IMPURE_BUILTINS
        ),
        "Return it as an effect; the shell around the engine carries it out.",
    )


def test_actors_and_serve_do_not_know_each_other() -> None:
    report(
        (
            f"{source}: imports {module}"
            for folder, other in (("actors", "serve"), ("serve", "actors"))
            for source in python_files(folder)
            for module in sorted(source.imports)
            if is_in(module, other)
        ),
        "Both build on aiqueue/ alone: actors are reached by name through aiqueue/client/.",
    )


# --- sizes and layout ------------------------------------------------------------------------------------------------


def test_no_file_is_too_long() -> None:
    report(
        (
            f"{source}: {lines} lines, {limit} are allowed"
            for folder, limit in FILE_LINES.items()
            for source in python_files(folder)
            if (lines := len(source.text.splitlines())) > limit
        ),
        "A file holds one concept: move the second one to a file of its own.",
    )


def test_no_function_is_too_long() -> None:
    report(
        (
            f"{source}:{function.lineno}: {function.name} has {lines} lines"
            for source in python_files(*SHIPPED)
            for function in source.functions
            if (lines := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES
        ),
        f"{FUNCTION_LINES} lines are the limit: name the steps and make each a function.",
    )


def test_every_package_folder_has_an_init_file() -> None:
    folders = {folder for source in python_files(*FILE_LINES) for folder in source.path.parents if folder.parts}
    report(
        (str(folder) for folder in sorted(folders) if not (ROOT / folder / "__init__.py").is_file()),
        "Add an __init__.py with a docstring. Without it a folder of tests can hide a package of the same name.",
    )


# --- docstrings ------------------------------------------------------------------------------------------------------


def test_everything_public_has_a_docstring() -> None:
    sources = python_files(*SHIPPED)
    # A method is documented where its protocol or base class declares it, not again in each class that has it.
    declared = {
        node.name
        for source in sources
        for name, node in source.public_nodes()
        if "." in name and isinstance(node, FunctionNode) and ast.get_docstring(node)
    }
    report(
        (
            f"{source}:{getattr(node, 'lineno', 1)}: {name}"
            for source in sources
            for name, node in source.public_nodes()
            if not ast.get_docstring(node)
            and not (isinstance(node, FunctionNode) and _is_said_elsewhere(node, declared))
        ),
        "Say what it is for, units, errors, an example that runs; or give the name a leading underscore.",
    )


def _is_said_elsewhere(node: FunctionNode, declared: set[str]) -> bool:
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    is_half = "overload" in decorators or "typing.overload" in decorators or f"{node.name}.setter" in decorators
    return is_half or ("self" in {arg.arg for arg in node.args.args} and node.name in declared)


def test_no_wait_with_a_limit_drops_what_it_was_given() -> None:
    report(
        (
            f"{source}:{call.lineno}: {ast.unparse(call)}"
            for source in python_files(*SHIPPED)
            for call in source.calls
            if called_name(call) == "asyncio.wait_for"
        ),
        "Python 3.12 drops what it was given in the turn in which its time is over: use done_within in aiqueue.waiting "
        "for a future, asyncio.timeout for a call that only this waits for.",
    )


def test_numbers_in_texts_are_read_by_the_digits_0_to_9() -> None:
    report(
        (
            f"{source}:{node.lineno}: {ast.unparse(node)[:60]}"
            for source in python_files(*SHIPPED)
            for node in ast.walk(source.tree)
            if str(source) not in MAY_ASK_FOR_DIGITS and _takes_other_digits(node)
        ),
        "It takes digits of other scripts too, and isdigit some that int() refuses: use is_number of aiqueue.texts, or "
        "[0-9] in a pattern.",
    )


def _takes_other_digits(node: ast.AST) -> TypeGuard[ast.expr]:
    if isinstance(node, ast.Attribute):
        return node.attr in ("isdigit", "isdecimal", "isnumeric")
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and "\\d" in node.value


def test_no_pattern_takes_more_than_linear_time() -> None:
    report(
        (
            f"{used.place}: {why}: {used.pattern[:60]}"
            for source in python_files(*SHIPPED)
            for used in patterns_of(source)
            if (why := why_slow(used.pattern, used.flags, searched=used.searched))
        ),
        "A provider's header or a caller's text of 8,000 characters stops the event loop for seconds: write the "
        "pattern so that each text matches in one way only.",
    )


def test_no_pattern_takes_memory_for_each_repetition() -> None:
    report(
        (
            f"{used.place}: {used.pattern[:60]}"
            for source in python_files(*SHIPPED)
            if str(source) not in MAY_KEEP_REPETITIONS
            for used in patterns_of(source)
            if keeps_each_repetition(used.pattern, used.flags)
        ),
        "It remembers 120 bytes of each repetition, 1 GiB for a text of 12 MiB: make the repeat possessive, as *+.",
    )


# --- tests -----------------------------------------------------------------------------------------------------------


def test_unit_and_property_tests_never_sleep() -> None:
    report(
        (
            f"{source}:{call.lineno}: {ast.unparse(call)}"
            for source in python_files("tests/unit", "tests/property")
            for call in source.calls
            if called_name(call).rpartition(".")[2] == "sleep" and not _yields_once(call)
        ),
        "Move a ManualClock, or wait for the event itself; asyncio.sleep(0) lets others run and is fine.",
    )


def _yields_once(call: ast.Call) -> bool:
    return called_name(call) == "asyncio.sleep" and [ast.unparse(arg) for arg in call.args] == ["0"]


def test_tests_use_fakes_and_not_mocks() -> None:
    report(
        (
            f"{source}: imports {module}"
            for source in python_files("tests")
            for module in sorted(source.imports)
            if any(is_in(module, mocks) for mocks in ("unittest.mock", "mock", "pytest_mock"))
        ),
        "Write a fake in aiqueue/testing/: it has behaviour, and one place to change when the real thing does.",
    )


# --- what everybody gets ---------------------------------------------------------------------------------------------


# --- helpers ---------------------------------------------------------------------------------------------------------


def _pure_sources() -> list[Source]:
    sources = [source for source in python_files("aiqueue") if str(source).startswith(PURE)]
    gone = [entry for entry in PURE if not any(str(source).startswith(entry) for source in sources)]
    assert not gone, f"PURE names what is not there, so that nobody checks it: {gone}"
    return sources


def _module_name(source: Source) -> str:
    return ".".join(source.path.with_suffix("").parts).removesuffix(".__init__")
