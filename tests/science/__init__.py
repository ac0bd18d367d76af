"""The claims about 1cycle, run with seeds and intervals: `make science`; `PLAN.md` says what is run."""
