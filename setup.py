"""Installs geex_jax and the command `geex`."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "geex_jax/version.py").read_text())[1]

# Lower ends are tested by `.ci/run lowest`, upper ends by `.ci/run` on the day of the release.
REQUIREMENTS = [
    "jax>=0.8.0",
    "flax>=0.12.0",
    "optax>=0.2.6",
    "orbax-checkpoint>=0.11.30",
    "chex>=0.1.90",
    "ml-collections>=1.1.0",
    "numpy>=2.0",
    "sentencepiece>=0.2.0",
    "tiktoken>=0.9.0",
    "tokenizers>=0.21",
    "grain>=0.2.14",
    "array-record>=0.8.1",
    "tensorboardX>=2.6.2.2",
    "matplotlib>=3.9",
    "absl-py>=2.1",
    "huggingface-hub>=0.26",
    "fsspec>=2024.6.0",
    "pathspec>=0.12.1",
    "zstandard>=0.23.0",
    "rensa>=0.5",  # its signatures' algorithm is number 2; the pipeline remembers the number
]

# Grammars of the six languages, for CodeBLEU.
METRICS = [
    "tree-sitter>=0.26",
    "tree-sitter-python>=0.25",
    "tree-sitter-cpp>=0.23.4",
    "tree-sitter-java>=0.23.5",
    "tree-sitter-javascript>=0.25",
    "tree-sitter-go>=0.25",
    "tree-sitter-rust>=0.24",
]

# Grammars that XLCoST's programs are parsed with, beside those of METRICS.
GRAMMARS = ["tree-sitter-c>=0.24", "tree-sitter-php>=0.24", "tree-sitter-c-sharp>=0.23"]

# The server: ASGI, bodies of requests, chat templates, figures.
SERVE = [
    "starlette>=0.40",
    "uvicorn>=0.30",
    "pydantic>=2.9",
    "jinja2>=3.1",
    "prometheus-client>=0.20",
]

setup(
    name="geex-jax",
    version=VERSION,
    description="Train, evaluate, quantize and serve multilingual code models on TPUs, in JAX",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    # The experiments go along in the wheel, for users without a clone.
    packages=[
        *find_packages(include=["geex_jax", "geex_jax.*"]),
        "geex_jax._experiments",
        "geex_jax._experiments.data",
    ],
    package_dir={"geex_jax._experiments": "experiments"},
    package_data={
        "geex_jax._experiments.data": ["*.json"],
        "geex_jax.benchmark.humaneval_x": ["fixes/*.json", "prompts/*.txt"],
        "geex_jax.benchmark.languages": ["native/*"],
        "geex_jax.benchmark.report": ["samples.js"],
        "geex_jax.data.report": ["page.css"],
        "geex_jax.kernels": ["native/*"],
        "geex_jax.pages": ["page.html", "page.css"],
        "geex_jax.serving": ["static/*"],
    },
    install_requires=REQUIREMENTS,
    extras_require={
        "tpu": ["jax[tpu]>=0.8.0"],
        "gpu": ["jax[cuda12]>=0.8.0"],
        "data": ["pyarrow>=18"],
        "convert": ["torch>=2.6", "transformers>=4.57", "safetensors>=0.5"],
        "serve": SERVE,
        "export": ["flatbuffers>=24.3.25"],  # jax.export writes programs with it
        "wandb": ["wandb>=0.19"],
        "ray": ["ray[client]>=2.40"],
        "metrics": METRICS,
        "security": ["bandit>=1.8"],
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "hypothesis>=6.120",
            "psutil>=6",
            "safetensors>=0.5",
            "pyarrow>=18",
            "httpx>=0.27",
            "flatbuffers>=24.3.25",
            *SERVE,
            *METRICS,
            *GRAMMARS,
            # The TPU compiler, for programs compiled ahead of time; other systems have none.
            "jax[tpu]>=0.8.0; sys_platform == 'linux' and platform_machine == 'x86_64'",
            "ruff==0.17.6",
            "pyright==1.1.414",
        ],
    },
    entry_points={"console_scripts": ["geex=geex_jax.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
    ],
)
