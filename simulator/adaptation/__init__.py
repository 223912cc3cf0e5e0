"""Adaptation: an application whose variants, batch sizes and replicas follow the load while it runs."""

from simulator.adaptation.forecasts import Forecast, Span, blend, fit_forecast, smape_percent
from simulator.adaptation.loop import Controller, Decision
from simulator.adaptation.lstm import trained_lstm
from simulator.adaptation.outcomes import Outcomes, outcomes_of
from simulator.adaptation.predictors import PREDICTORS, ar1, largest, mean, oracle, reactive
from simulator.adaptation.service import Configuration, ServedTask, Service, Setting, Variant, running

__all__ = [
    "PREDICTORS",
    "Configuration",
    "Controller",
    "Decision",
    "Forecast",
    "Outcomes",
    "ServedTask",
    "Service",
    "Setting",
    "Span",
    "Variant",
    "ar1",
    "blend",
    "fit_forecast",
    "largest",
    "mean",
    "oracle",
    "outcomes_of",
    "reactive",
    "running",
    "smape_percent",
    "trained_lstm",
]
