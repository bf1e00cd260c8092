#include "http/process_routes.h"

#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "common/process.h"
#include "common/status.h"

namespace fathom::http {
namespace {

Response Json(int status, const nlohmann::json& body) {
  return {status, "application/json", body.dump() + "\n", {}};
}

Response HealthAnswer(const char* key, const absl::Status& status) {
  if (status.ok()) return Json(200, {{key, true}});
  return Json(503, {{key, false}, {"reason", Message(status)}});
}

Response VersionAnswer(const std::string& role) {
  const BuildParts build = OwnBuild();
  return Json(200, {{"version", build.version}, {"commit", build.commit}, {"role", role}});
}

}  // namespace

void AddProcessRoutes(const std::string& role, const Metrics* metrics, const Health& health,
                      Routes* routes) {
  const auto add = [routes](const char* path, const char* key,
                            const std::function<absl::Status()>& check) {
    routes->Add("GET", path, [key, check](const Request&) { return HealthAnswer(key, check()); });
  };
  add("/health/live", "live", health.live);
  add("/livez", "live", health.live);
  add("/health/ready", "ready", health.ready);
  add("/health", "ready", health.ready);
  add("/health/progress", "progress", health.progress ? health.progress : health.live);
  routes->Add("GET", "/version", [role](const Request&) { return VersionAnswer(role); });
  routes->Add("GET", "/metrics", [metrics](const Request&) {
    return Response{200, "text/plain; version=0.0.4; charset=utf-8", metrics->Text(), {}};
  });
}

std::function<absl::Status()> LiveBy(const SelfDial* self, const LoopWatch* loop) {
  return [self, loop]() -> absl::Status {
    FATHOM_RETURN_IF_ERROR(loop->Turns());
    if (self->hears()) return absl::OkStatus();
    return Unavailable("a port of this process answers no new connection");
  };
}

std::unique_ptr<Server> ServeProcess(Listener listener, const std::string& role, Metrics* metrics,
                                     const Health& health, Routes routes, const Limits& limits,
                                     Protection protection) {
  AddProcessRoutes(role, metrics, health, &routes);
  std::map<int, Counter> answers;
  const auto count = [metrics](const std::string& code) {
    return metrics->AddCounter("http_requests_total", "Answers of the HTTP port, by status.",
                               {{"code", code}});
  };
  for (const int status :
       {200, 400, 401, 403, 404, 405, 409, 413, 415, 429, 431, 499, 500, 503, 504}) {
    answers[status] = count(std::to_string(status));
  }
  const auto answered = [answers, other = count("other")](int status) mutable {
    const auto known = answers.find(status);
    (known == answers.end() ? other : known->second).Add();
  };
  return std::make_unique<Server>(std::move(listener), std::move(routes), answered, limits,
                                  std::move(protection));
}

}  // namespace fathom::http
