"""Validity checks: rules that say which rows, and so which laws, should not be trusted as they stand (method 3)."""

from phaselaw.laws.checks import calls, models, served

CHECKS = (
    served.prompt_cache,
    served.count_convention,
    served.prompt_cut,
    served.server_claim,
    served.tokens_estimated,
    served.clients_in_step,
    served.client_at_its_limit,
    models.far_off,
    models.spill,
    models.labels,
    models.from_the_name,
    models.heterogeneous,
    calls.contradictory,
    calls.drift,
    calls.off_as_a_whole,
    calls.throttling,
    calls.busy_machine,
    calls.shared_server,
    calls.measured_loads,
    calls.repetitions,
    calls.comparable,
)
"""All checks, in the order of ``validity_checks``."""
