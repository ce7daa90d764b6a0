"""The ablation of PPO's tricks: each variant is valid and differs from the base where it says."""

import dataclasses

import pytest

import jaxrl_envs
from benchmarks.tricks import BASES, variants


@pytest.mark.parametrize("name", BASES)
def test_every_variant_can_be_trained(name):
    base, _, _ = BASES[name]
    spec = jaxrl_envs.make(f"gymnax/{name}").spec
    for variant, (agent, training, wrap) in variants(name).items():
        changed = base.replace(**agent).bind(spec)
        fields = [f.name for f in dataclasses.fields(base) if f.name != "spec"]
        differs = [f for f in fields if repr(getattr(changed, f)) != repr(getattr(base, f))]
        assert sorted(differs) == sorted(agent), variant
        assert (variant == "base") == (not agent and not training and wrap is None)
