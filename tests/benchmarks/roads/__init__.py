"""Does mining help on real road photos, where the weakness is a condition that no label names?

python -m tests.benchmarks.roads run night-is-coming --work WORK
python -m tests.benchmarks.roads table --work WORK --out FOLDER
python -m tests.benchmarks.roads conditions --work WORK --out FOLDER
python -m tests.benchmarks.roads retrieval --work WORK --out FOLDER
python -m tests.benchmarks.roads conditions --work WORK --out FOLDER
"""
