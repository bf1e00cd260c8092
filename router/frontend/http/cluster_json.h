// router/frontend/http/cluster_json.h: the state of the cluster and the reports of requests as
// JSON, with the names of GetStatus and Explain (proto/inference.proto) where they have them. Pure.
#pragma once

#include <vector>

#include "router/api/requests.h"
#include "router/frontend/http/json_writer.h"
#include "router/sessions/request_report.h"

namespace fathom::router {

void WriteStatus(const StatusAnswer& answer, JsonWriter* json);
// {"requests": [...]}
void WriteRequests(const std::vector<RequestReport>& reports, JsonWriter* json);

}  // namespace fathom::router
