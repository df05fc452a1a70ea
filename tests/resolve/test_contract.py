"""What every resolver keeps, whatever its source: one suite for all of them."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path

import anyio
import pytest

from grpclb_core.resolve import Resolver
from support.recorder import Recorder
from support.worlds import WORLDS, World

pytestmark = pytest.mark.anyio

A, B, C = "10.0.0.1:50051", "10.0.0.2:50051", "10.0.0.3:50051"
QUIET_S = 0.5  # long against the pace of every world, short against a test run
PROMPT_S = 2.0


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest, anyio_backend_name: str, tmp_path: Path) -> AsyncIterator[World]:
    module = import_module(f"support.worlds.{request.param}")
    if anyio_backend_name not in getattr(module, "BACKENDS", ("asyncio", "trio")):
        pytest.skip(f"the {request.param} resolver does not run on {anyio_backend_name}")
    async with module.world(tmp_path) as opened:
        yield opened


@asynccontextmanager
async def running(resolver: Resolver, sink: Recorder) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolver.run, sink)
        yield
        cancelled_s = anyio.current_time()
        tasks.cancel_scope.cancel()
    assert anyio.current_time() - cancelled_s < PROMPT_S


def listed(sink: Recorder) -> list[str]:
    return sorted(str(endpoint.address) for endpoint in sink.updates[-1].endpoints) if sink.updates else []


async def test_it_has_the_shape(world: World) -> None:
    assert isinstance(world.resolver, Resolver)


async def test_the_whole_set_is_pushed_first_and_after_every_change(world: World, sink: Recorder) -> None:
    await world.publish(A, B)
    async with running(world.resolver, sink):
        await sink.until(lambda: listed(sink) == [A, B])
        await world.publish(A, B, C)
        await sink.until(lambda: listed(sink) == [A, B, C])
        await world.publish(C)
        await sink.until(lambda: listed(sink) == [C])
    assert sink.errors == []


async def test_what_did_not_change_is_not_pushed_again(world: World, sink: Recorder) -> None:
    await world.publish(A, B)
    async with running(world.resolver, sink):
        await sink.until(lambda: listed(sink) == [A, B])
        await world.publish(B, A)
        world.resolver.refresh()
        await anyio.sleep(QUIET_S)
    assert len(sink.updates) == 1


async def test_the_last_set_outlives_its_source(world: World, sink: Recorder) -> None:
    await world.publish(A, B)
    async with running(world.resolver, sink):
        await sink.until(lambda: listed(sink) == [A, B])
        await world.fail()
        await sink.until(lambda: sink.errors)
        await anyio.sleep(QUIET_S)
        assert listed(sink) == [A, B]
        await world.heal()
        await world.publish(B, C)
        await sink.until(lambda: listed(sink) == [B, C])


async def test_a_source_that_is_late_is_waited_for(world: World, sink: Recorder) -> None:
    await world.publish(A)
    await world.fail()
    async with running(world.resolver, sink):
        await sink.until(lambda: sink.errors)
        assert sink.updates == []
        await world.heal()
        await sink.until(lambda: listed(sink) == [A])


async def test_a_fault_says_what_and_where(world: World, sink: Recorder) -> None:
    await world.fail()
    async with running(world.resolver, sink):
        await sink.until(lambda: sink.errors)
    assert len(str(sink.errors[0])) > 20


async def test_it_may_be_asked_to_look_again_at_any_time(world: World, sink: Recorder) -> None:
    world.resolver.refresh()
    await world.publish(A)
    async with running(world.resolver, sink):
        for _ in range(100):
            world.resolver.refresh()
        await sink.until(lambda: listed(sink) == [A])
    world.resolver.refresh()


async def test_it_can_be_run_again(world: World, sink: Recorder) -> None:
    await world.publish(A)
    async with running(world.resolver, sink):
        await sink.until(lambda: listed(sink) == [A])
    again = Recorder()
    async with running(world.resolver, again):
        await world.publish(A, B)
        await again.until(lambda: listed(again) == [A, B])


@pytest.mark.filterwarnings("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning")
async def test_it_leaves_nothing_open(world: World, sink: Recorder) -> None:
    await world.publish(A)
    for _ in range(3):
        async with running(world.resolver, sink):
            await sink.until(lambda: sink.updates)
    gc.collect()
