"""Whole models for images, one family per file."""
