// cli/status/metrics_text.h: reads the values of metrics from a /metrics page (Prometheus text
// 0.0.4). Pure.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace fathom::client {

// The sum over all label sets of `name`; nullopt: the page has no such metric.
std::optional<double> MetricOf(std::string_view page, std::string_view name);

// The value for each value of one label, e.g. "reason" of requests_waiting_by_reason. Values of the
// label that contain escaped characters are kept as they are written.
std::map<std::string, double> MetricByLabel(std::string_view page, std::string_view name,
                                            std::string_view label);

}  // namespace fathom::client
