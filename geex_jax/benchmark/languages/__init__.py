"""The languages of HumanEval-X: how their programs are put together, built, run and judged."""
