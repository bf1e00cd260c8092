#include "client/cluster_plan.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace fathom::client {
namespace {

bool HasPair(const ChildSpec& spec, const std::string& flag, const std::string& value) {
  const auto it = std::find(spec.argv.begin(), spec.argv.end(), flag);
  return it != spec.argv.end() && it + 1 != spec.argv.end() && *(it + 1) == value;
}

TEST(ClusterPlanTest, EachProcessIsToldItsPlace) {
  ServeOptions options{.model = "m", .tp = 2, .dp = 2, .run_dir = "r"};
  options.worker_flags = {{"--threads", "3"}};
  EXPECT_EQ(options.workers(), 4);
  const ChildSpec scheduler = SchedulerSpec(options, "/bin");
  EXPECT_EQ(scheduler.argv[0], "/bin/fathom-scheduler");
  EXPECT_TRUE(HasPair(scheduler, "--term-file", "r/term"));
  EXPECT_EQ(scheduler.ports.at("port").port, 8003);
  const ChildSpec worker = WorkerSpec(options, "/bin", 9000, 3);
  EXPECT_EQ(worker.name, "worker-3");
  EXPECT_TRUE(HasPair(worker, "--scheduler", "127.0.0.1:9000"));
  EXPECT_TRUE(HasPair(worker, "--threads", "3"));
  EXPECT_EQ(worker.ports.at("port").port, 8013);
  EXPECT_EQ(worker.ports.at("metrics_port").port, 8113);
  const ChildSpec router = RouterSpec(options, "/bin", 9000);
  EXPECT_EQ(router.ports.at("grpc_port").port, 8001);
  EXPECT_EQ(router.ports.at("http_port").port, 8000);
  for (const ChildSpec* spec : {&scheduler, &worker, &router}) {
    EXPECT_EQ(spec->argv[1], "--die-with-parent");
  }
  EXPECT_LT(router.stop_stage, worker.stop_stage);
  EXPECT_LT(worker.stop_stage, scheduler.stop_stage);
}

TEST(ClusterPlanTest, ZeroStaysAnyFreePort) {
  const ServeOptions options{.worker_port = 0, .worker_metrics_port = 0};
  EXPECT_EQ(WorkerSpec(options, "/bin", 1, 5).ports.at("port").port, 0);
}

TEST(ClusterPlanTest, WhatThisBuildCannotDoIsRefused) {
  EXPECT_TRUE(CheckOptions({}).ok());
  EXPECT_FALSE(CheckOptions({.device = "cuda"}).ok());
  EXPECT_FALSE(CheckOptions({.pp = 2}).ok());
  EXPECT_FALSE(CheckOptions({.tp = 2, .worker_port = 65535}).ok());
  EXPECT_TRUE(CheckOptions({.tp = 1, .worker_port = 65535}).ok());
}

}  // namespace
}  // namespace fathom::client
