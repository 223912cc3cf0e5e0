"""Run the simulator's command line."""

from simulator.cli.main import main

if __name__ == "__main__":
    main()
