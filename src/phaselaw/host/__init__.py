"""What this machine can do at most, measured in seconds: ``phaselaw host``, and the limits in every manifest.

`limits` gives them, kept or fresh; `probe` measures in a process of its own, so that its buffers and threads are in no
other's; `bandwidth`, `compute` and `timer` are what is measured. A GPU's limits, and those of torch's matrix products,
are measured by `phaselaw.engines.hf_limits`.
"""
