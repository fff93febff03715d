"""The doors: configuration, wiring, commands and reports. The only room that knows both data_shards and kd."""
