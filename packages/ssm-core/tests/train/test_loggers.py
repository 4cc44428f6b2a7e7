from ssm_core.train.loggers import MetricsFile, read_metrics


def test_metrics_file_round_trip_keeps_every_bit(tmp_path):
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path)
    values = [0.1, 1 / 3, 1e-300, float("inf")]
    for step, value in enumerate(values):
        file.write(step, 0, {"train/loss": value})
    file.close()
    assert read_metrics(path) == {"train/loss": list(enumerate(values))}


def test_metrics_file_goes_back_to_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path)
    file.write(1, 0, {"a": 1.0})
    keep = file.size
    file.write(2, 0, {"a": 2.0, "b": 3.0})
    file.close()
    file = MetricsFile(path, keep)
    file.write(2, 0, {"a": 5.0})
    file.close()
    assert path.read_text() == "step,epoch,name,value\n1,0,a,1.0\n2,0,a,5.0\n"


def test_read_metrics_ignores_a_half_written_row(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,epoch,name,value\n1,0,a,1.0\n2,0,a")
    assert read_metrics(path) == {"a": [(1, 1.0)]}
