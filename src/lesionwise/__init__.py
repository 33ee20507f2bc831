"""lesionwise: finds, separates, measures and follows multiple-sclerosis lesions on brain MRI."""

__version__ = "0.1.0"
