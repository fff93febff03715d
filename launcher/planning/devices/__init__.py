"""Devices that runs are planned on: figures of datasheets, files of measured rates, and the device of this process."""
