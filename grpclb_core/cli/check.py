"""`grpclb check`: is a file a config, a service config or a list of endpoints that can be used? It tells all faults."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ..config import Config, FileConfig, parse_config
from ..errors import ConfigError, ResolutionError
from ..resolve.file.format import parse_document, read_endpoints
from ..resolve.file.resolver import read_bounded
from ..service_config import KNOWN, ServiceConfig, parse_service_config
from .text import plain

# Exit status when a file cannot be used.
EXIT_FAULTY = 1


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "check",
        help="validate a config, a service config, or a file of endpoints",
        description="Validate files: options as for config=, a service config as gRPC has it, or endpoints as for a "
        "file: target. Exit with 1 if one cannot be used.",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a file of JSON or TOML, told by its name")
    parser.add_argument(
        "--kind",
        choices=("config", "endpoints", "service-config"),
        help="what the files hold (default: endpoints for a list, or where there is a field of that name; a service "
        "config where there is one of its fields, as loadBalancingConfig)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print what each file is or what is wrong with it; return the exit status."""
    faulty = False
    for path in options.files:
        try:
            print(f"{path}: {check(path, options.kind)}, no fault found")
        except ConfigError as error:
            faulty = True
            for problem in error.problems:
                print(f"{path}: {plain(problem)}")
    return EXIT_FAULTY if faulty else 0


def check(path: Path, kind: str | None = None) -> str:
    """Return what a file holds, in words.

    Raises:
        ConfigError: it cannot be used, with one problem for each fault.
    """
    document = read_document(path)
    kind = kind or kind_of(document)
    if kind == "endpoints":
        count = len(read_endpoints(document))
        return f"{count} endpoint{'' if count == 1 else 's'}"
    if kind == "service-config":
        return _described(parse_service_config(cast("Mapping[str, object]", document)))
    config_of(document)
    return "a config"


def kind_of(document: object) -> str:
    """Return what a document is meant to be, by its fields: `endpoints`, `service-config`, or else `config`."""
    if isinstance(document, list) or (isinstance(document, Mapping) and "endpoints" in document):
        return "endpoints"
    return "service-config" if isinstance(document, Mapping) and any(name in KNOWN for name in document) else "config"


def _described(config: ServiceConfig) -> str:
    policy = "without a policy" if config.policy is None else f"of policy {config.policy.name}"
    unknown = f", with fields that nobody knows ({', '.join(map(plain, config.ignored))})" if config.ignored else ""
    return f"a service config {policy}{unknown}"


def config_of(document: object) -> Config:
    """Read a document as the options of a balancer.

    Raises:
        ConfigError: with one problem for each fault.
    """
    if not isinstance(document, Mapping):
        raise ConfigError(f"config: expected a mapping of options, got {type(document).__name__}")
    try:
        return parse_config(document)
    except RecursionError:
        raise ConfigError("config: nested too deeply; no option needs more than three levels") from None


def read_document(path: Path) -> object:
    """Read a file of JSON or TOML.

    Raises:
        ConfigError: it cannot be read, or its text is broken.
    """
    try:
        _, data = read_bounded(os.fspath(path), FileConfig().max_bytes)
    except ResolutionError as error:
        raise ConfigError(str(error)) from error
    return parse_document(data, path.name)
