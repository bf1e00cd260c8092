#include "http/process_routes.h"

#include "common/clock.h"
#include "common/loop_watch.h"
#include "tests/http/http_client.h"

namespace fathom::http {
namespace {

TEST(ProcessRoutes, HealthHasItsReason) {
  Metrics metrics("worker");
  absl::Status live, ready, progress;
  Routes routes;
  AddProcessRoutes("worker", &metrics,
                   {[&] { return live; }, [&] { return ready; }, [&] { return progress; }},
                   &routes);
  const auto get = [&](const char* path) {
    const Response answer = routes.Answer({"GET", path, "", ""});
    return std::to_string(answer.status) + " " + answer.body;
  };
  EXPECT_EQ(get("/health/live"), "200 {\"live\":true}\n");
  EXPECT_EQ(get("/livez"), "200 {\"live\":true}\n");
  EXPECT_EQ(get("/health/ready"), "200 {\"ready\":true}\n");
  EXPECT_EQ(get("/health"), "200 {\"ready\":true}\n");
  EXPECT_EQ(get("/health/progress"), "200 {\"progress\":true}\n");
  live = Internal("deaf");
  ready = Unavailable("in no group");
  progress = Internal("step 3 stands");
  EXPECT_EQ(get("/health/live"), "503 {\"live\":false,\"reason\":\"deaf\"}\n");
  EXPECT_EQ(get("/health"), "503 {\"ready\":false,\"reason\":\"in no group\"}\n");
  EXPECT_EQ(get("/health/progress"), "503 {\"progress\":false,\"reason\":\"step 3 stands\"}\n");
  EXPECT_EQ(get("/metrics"), "200 " + metrics.Text());
  const std::string version = get("/version");
  EXPECT_TRUE(version.starts_with("200 {\"commit\":\"")) << version;
  EXPECT_NE(version.find("\"role\":\"worker\",\"version\":\""), std::string::npos) << version;
}

TEST(ProcessRoutes, ALoopThatStandsIsNotLive) {
  ManualClock clock;
  LoopWatch loop("main loop", &clock, 10'000'000);
  const SelfDial self({});
  const auto live = LiveBy(&self, &loop);
  clock.Advance(60'000'000);
  EXPECT_TRUE(live().ok());  // The process still starts.
  loop.Turn();
  clock.Advance(10'000'000);
  EXPECT_TRUE(live().ok());
  clock.Advance(1);
  EXPECT_EQ(Message(live()), "the main loop of this process has made no round for 10.0 s");
  loop.Turn();
  EXPECT_TRUE(live().ok());
}

TEST(ProcessRoutes, AnswersAreCounted) {
  Metrics metrics("scheduler");
  Listener listener = Listen();
  const int port = listener.port();
  const auto ok = [] { return absl::OkStatus(); };
  const auto server = ServeProcess(std::move(listener), "scheduler", &metrics, {ok, ok, {}});
  EXPECT_TRUE(IsStatus(Get(port, "/health/progress"), 200));
  EXPECT_TRUE(IsStatus(Get(port, "/no"), 404));
  const std::string text = Get(port, "/metrics");
  EXPECT_NE(text.find("fathom_scheduler_http_requests_total{code=\"200\"} 1\n"), std::string::npos)
      << text;
  EXPECT_NE(text.find("fathom_scheduler_http_requests_total{code=\"404\"} 1\n"), std::string::npos);
}

}  // namespace
}  // namespace fathom::http
