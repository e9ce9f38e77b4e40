"""A method whose module imports torch at once."""

import torch
from bad_methods import Good

assert torch


class Heavy(Good):
    title = "imports torch"
