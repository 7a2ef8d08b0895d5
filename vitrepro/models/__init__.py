"""The models a run can train; `build.build` makes any of them from its spec."""
