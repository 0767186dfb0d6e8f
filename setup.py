"""Package definition. Tool settings (ruff, mypy, pytest) live in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^VERSION = "(.+)"$', (HERE / "dedup_job/version.py").read_text(), re.M)[1]

# Upper bounds stand where the next major release is known or expected to break us: pyspark 4.3
# does not support pandas 3, and annoy 1.17 is the last release there will be.
CORE = [
    "pyspark>=4.1,<5",
    "numpy>=2.2,<3",
    "pandas>=2.2,<3",
    "pyarrow>=18,<27",
    "opencv-python-headless>=4.11,<6",
    "pillow>=12.3,<14",
    "annoy>=1.17.3,<1.18",
    "scipy>=1.15,<2",
    "fsspec>=2026.1",
    "pydantic>=2.10,<3",
    "PyYAML>=6.0.2,<7",
    "ai-edge-litert>=2.1,<3",
    "tqdm>=4.67,<5",
]
TRAIN = [
    "tensorflow>=2.21,<2.22",
    "keras>=3.15.1,<4",
    "matplotlib>=3.10,<4",
    "seaborn>=0.13.2,<0.14",
]
S3 = ["s3fs>=2026.1"]
GCS = ["gcsfs>=2026.1"]
LAKEHOUSE = ["deltalake>=1.1,<2", "pyiceberg[pyarrow,sql-sqlite]>=0.10,<1"]
# alembic and SQLAlchemy make the light client read sqlite:///FILE; a server needs neither
MLFLOW = ["mlflow-skinny>=3.12,<4", "alembic>=1.15,<2", "sqlalchemy>=2.0,<3"]
DEV = [
    *S3,
    *LAKEHOUSE,
    *MLFLOW,
    "pytest>=8.3,<10",
    "pytest-xdist>=3.8,<4",  # the quick tests in two processes
    "hypothesis>=6.120,<7",
    # wheels for Linux only; what needs it is skipped elsewhere
    "atheris>=3,<4; platform_system == 'Linux' and platform_machine == 'x86_64' and python_version < '3.14'",
    "networkx>=3.4,<4",
    "duckdb>=1.2,<3",
    # execute docs/tour.ipynb
    "nbclient>=0.11,<0.12",
    "nbformat>=5.11,<6",
    "ipykernel>=7.4,<8",
    "sqlglot>=30,<31",
    "moto[server,s3]>=5.1,<6",
    "ruff>=0.14,<0.16",
    "mypy>=1.18,<3",
    "types-PyYAML",
    "types-tqdm",
    "pre-commit>=4,<5",
    # drives the browser that the machine has (Debian: apt-get install chromium); brings none itself
    "playwright>=1.65,<2",
    "build>=1.2,<2",
    "venv-pack>=0.2,<0.3",
]

setup(
    name="catalog-dedup",
    version=VERSION,
    description="Nightly Spark job that finds near-duplicate products in a catalog by their photos",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["dedup_job*", "model_training*"]),
    package_data={
        "dedup_job": ["py.typed", "models/**/*", "io/log4j2.properties", "gallery/assets/*"],
        "model_training": ["py.typed", "configs/*.yaml"],
    },
    install_requires=CORE,
    extras_require={
        "train": TRAIN,
        "s3": S3,
        "gcs": GCS,
        "lakehouse": LAKEHOUSE,
        "mlflow": MLFLOW,
        "dev": DEV,
    },
    entry_points={
        "console_scripts": [
            "dedup-job=dedup_job.cli:run_and_exit",
            "model-training=model_training.cli:run_and_exit",
        ]
    },
)
