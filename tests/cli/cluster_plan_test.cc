#include "cli/serve/cluster_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace fathom::client {
namespace {

bool HasPair(const ChildSpec& spec, const std::string& flag, const std::string& value) {
  const auto it = std::find(spec.argv.begin(), spec.argv.end(), flag);
  return it != spec.argv.end() && it + 1 != spec.argv.end() && *(it + 1) == value;
}

TEST(ClusterPlanTest, EachProcessIsToldItsPlace) {
  ServeOptions options{.model = "m", .tp = 2, .dp = 2, .run_dir = "r", .own_pid = 1};
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
  EXPECT_TRUE(HasPair(worker, "--local-workers", "4"));
  EXPECT_EQ(worker.ports.at("port").port, 8013);
  EXPECT_EQ(worker.ports.at("metrics_port").port, 8113);
  const ChildSpec router = RouterSpec(options, "/bin", 9000);
  EXPECT_EQ(router.ports.at("grpc_port").port, 8001);
  EXPECT_EQ(router.ports.at("http_port").port, 8000);
  for (const ChildSpec* spec : {&scheduler, &worker, &router}) {
    EXPECT_TRUE(HasPair(*spec, "--die-with-parent", "1"));
  }
  EXPECT_LT(router.stop_stage, worker.stop_stage);
  EXPECT_LT(worker.stop_stage, scheduler.stop_stage);
}

TEST(ClusterPlanTest, BehindAnEdgeTheRouterListensInside) {
  const ServeOptions options{.model = "m", .host = "::", .grpc_port = 9001, .edge = true};
  const ChildSpec router = RouterSpec(options, "/bin", 1);
  EXPECT_TRUE(HasPair(router, "--host", "127.0.0.1"));
  EXPECT_EQ(router.argv.back(), "--behind-proxy");
  EXPECT_EQ(router.ports.at("grpc_port").port, 0);
  const ChildSpec edge = EdgeSpec(options, "/bin", 5000);
  EXPECT_TRUE(HasPair(edge, "--host", "::"));
  EXPECT_TRUE(HasPair(edge, "--router", "127.0.0.1:5000"));
  EXPECT_EQ(edge.ports.at("grpc_port").port, 9001);
  EXPECT_GT(edge.stop_stage, router.stop_stage);  // Streams drain through the edge.
}

// `fathom workers`: the ranks follow from the group and the host, whatever else runs on the host.
TEST(ClusterPlanTest, WorkersOfAGroupOnSeveralHosts) {
  ServeOptions options{.model = "m", .device = "cuda", .tp = 4, .pp = 2};
  options.nodes = 2;
  options.schedulers = {"a:8003", "b:8003"};
  options.worker_host = "0.0.0.0";
  ASSERT_TRUE(CheckOptions(options).ok());
  EXPECT_EQ(options.workers(), 4);
  ASSERT_TRUE(PlaceGroup(3, 1, &options).ok());
  const ChildSpec worker = WorkerSpec(options, "/bin", 0, 2);
  EXPECT_EQ(worker.name, "worker-2");
  EXPECT_TRUE(HasPair(worker, "--rank", "30"));  // 3 groups of 8, 4 ranks of the other host, 2.
  EXPECT_TRUE(HasPair(worker, "--scheduler", "a:8003,b:8003"));
  EXPECT_TRUE(HasPair(worker, "--host", "0.0.0.0"));
  EXPECT_TRUE(HasPair(worker, "--local-workers", "4"));
  EXPECT_EQ(worker.ports.at("metrics_port").port, 8112);
  EXPECT_EQ(worker.environment.at("CUDA_VISIBLE_DEVICES"), "2,0,1,3");
}

TEST(ClusterPlanTest, NumbersOfGroups) {
  EXPECT_EQ(GroupNumber("0").value(), 0);
  EXPECT_EQ(GroupNumber("12").value(), 12);
  EXPECT_EQ(GroupNumber("chat-7b-worker-3").value(), 3);
  for (const char* text : {"", "worker", "worker-", "worker-3a", "3 ", "worker-99999999999"}) {
    EXPECT_FALSE(GroupNumber(text).ok()) << text;
  }
}

TEST(ClusterPlanTest, RefusesGroupsThatDoNotExist) {
  ServeOptions options{.model = "m", .device = "cuda", .tp = 4};
  options.nodes = 3;
  EXPECT_THAT(std::string(Message(CheckOptions(options))), testing::HasSubstr("divisor of 4"));
  options.nodes = 2;
  options.device = "cpu";
  EXPECT_THAT(std::string(Message(CheckOptions(options))), testing::HasSubstr("share memory"));
  options.device = "cuda";
  EXPECT_THAT(std::string(Message(PlaceGroup(0, 2, &options))), testing::HasSubstr("0 to 1"));
  EXPECT_THAT(std::string(Message(PlaceGroup(1024, 0, &options))), testing::HasSubstr("0 to 1023"));
  EXPECT_TRUE(PlaceGroup(1023, 1, &options).ok());
  EXPECT_EQ(options.first_rank, 4094);
}

TEST(ClusterPlanTest, RouterAndWorkersHaveTheSameOverrides) {
  const ServeOptions options{.model = "m", .hf_overrides = R"({"rope_theta": 5})", .tp = 2};
  for (const ChildSpec& spec :
       {WorkerSpec(options, "/bin", 1, 0), WorkerSpec(options, "/bin", 1, 1),
        RouterSpec(options, "/bin", 1)}) {
    EXPECT_TRUE(HasPair(spec, "--hf-overrides", R"({"rope_theta": 5})")) << spec.name;
  }
  const auto plain = RouterSpec({.model = "m"}, "/bin", 1).argv;
  EXPECT_EQ(std::count(plain.begin(), plain.end(), "--hf-overrides"), 0);
}

TEST(ClusterPlanTest, TheRouterAloneHasTheChatTemplate) {
  const ServeOptions options{.model = "m", .chat_template = "t.jinja"};
  EXPECT_TRUE(HasPair(RouterSpec(options, "/bin", 1), "--chat-template", "t.jinja"));
  const ServeOptions forms{.model = "m", .reasoning_parser = "qwen3", .tool_call_parser = "hermes"};
  EXPECT_TRUE(HasPair(RouterSpec(forms, "/bin", 1), "--reasoning-parser", "qwen3"));
  EXPECT_TRUE(HasPair(RouterSpec(forms, "/bin", 1), "--tool-call-parser", "hermes"));
  const auto worker = WorkerSpec(options, "/bin", 1, 0).argv;
  EXPECT_EQ(std::count(worker.begin(), worker.end(), "--chat-template"), 0);
}

TEST(ClusterPlanTest, WorkersOfOtherHostsReachTheScheduler) {
  const ServeOptions options{.model = "m", .scheduler_host = "0.0.0.0"};
  EXPECT_TRUE(HasPair(SchedulerSpec(options, "/bin"), "--host", "0.0.0.0"));
  EXPECT_TRUE(HasPair(WorkerSpec(options, "/bin", 5, 0), "--scheduler", "127.0.0.1:5"));
  const ServeOptions one{.model = "m", .scheduler_host = "10.0.0.1"};
  EXPECT_TRUE(HasPair(WorkerSpec(one, "/bin", 5, 0), "--scheduler", "10.0.0.1:5"));
  EXPECT_TRUE(HasPair(WorkerSpec(one, "/bin", 5, 0), "--host", "127.0.0.1"));
  EXPECT_TRUE(HasPair(RouterSpec(one, "/bin", 5), "--scheduler", "10.0.0.1:5"));
}

TEST(ClusterPlanTest, EachWorkersNcclWritesBesideItsLog) {
  const ServeOptions options{.model = "m", .tp = 2, .run_dir = "/run", .nccl_debug = "INFO"};
  const ChildSpec second = WorkerSpec(options, "/bin", 1, 1);
  EXPECT_TRUE(HasPair(second, "--nccl-debug", "INFO"));
  EXPECT_TRUE(HasPair(second, "--nccl-debug-file", "/run/worker-1.nccl.log"));
  const auto plain = WorkerSpec({.model = "m"}, "/bin", 1, 0).argv;
  EXPECT_EQ(std::count(plain.begin(), plain.end(), "--nccl-debug"), 0);
}

TEST(ClusterPlanTest, EachWorkerSeesItsOwnGpu) {
  const auto gpu_of = [](const ServeOptions& options, int32_t index) {
    const ChildSpec spec = WorkerSpec(options, "/bin", 1, index);
    EXPECT_TRUE(HasPair(spec, "--device", options.device));
    const auto it = spec.environment.find("CUDA_VISIBLE_DEVICES");
    return it == spec.environment.end() ? std::string("inherited") : it->second;
  };
  EXPECT_EQ(gpu_of({.device = "cuda"}, 0), "inherited");
  EXPECT_EQ(gpu_of({.device = "cpu", .dp = 2}, 1), "inherited");
  EXPECT_EQ(gpu_of({.device = "cuda", .dp = 2}, 1), "1");
  const ServeOptions some{.device = "auto", .dp = 3, .visible_gpus = {{"4", "GPU-ab"}}};
  EXPECT_EQ(gpu_of(some, 0), "4");
  EXPECT_EQ(gpu_of(some, 1), "GPU-ab");
  EXPECT_EQ(gpu_of(some, 2), "");
}

TEST(ClusterPlanTest, ClustersBesideEachOtherHaveOtherRunDirectories) {
  const auto name = [](const std::string& host, int32_t port) {
    return RunDirName({.host = host, .grpc_port = port});
  };
  EXPECT_EQ(name("127.0.0.1", 8001), "fathom-127.0.0.1-8001");
  EXPECT_NE(name("127.0.0.2", 8001), name("127.0.0.1", 8001));
  EXPECT_NE(name("127.0.0.1", 8002), name("127.0.0.1", 8001));
  EXPECT_EQ(name("[::1]/..", 1), "fathom-___1__..-1");
}

TEST(ClusterPlanTest, TheSchedulerHasItsOwnFlags) {
  ServeOptions options;
  options.scheduler_flags = {{"--policy", "shortest-first"}};
  options.scheduler_switches = {"--no-enable-prefix-caching"};
  const ChildSpec spec = SchedulerSpec(options, "/bin");
  EXPECT_TRUE(HasPair(spec, "--policy", "shortest-first"));
  EXPECT_EQ(spec.argv.back(), "--no-enable-prefix-caching");
}

TEST(ClusterPlanTest, SwitchesReachTheWorkers) {
  ServeOptions options;
  options.worker_switches = {"--enforce-eager"};
  const ChildSpec spec = WorkerSpec(options, "/bin", 1, 0);
  EXPECT_EQ(std::count(spec.argv.begin(), spec.argv.end(), "--enforce-eager"), 1);
}

// A worker uses the first GPU that it sees, and maps the memory of the others of its group.
TEST(ClusterPlanTest, AWorkerSeesItsGpuFirstAndThoseOfItsGroup) {
  ServeOptions options{.device = "cuda", .tp = 2, .dp = 2};
  const auto seen = [&](int32_t index) {
    return WorkerSpec(options, "/bin", 1, index).environment.at("CUDA_VISIBLE_DEVICES");
  };
  EXPECT_EQ(seen(0), "0,1");
  EXPECT_EQ(seen(1), "1,0");
  EXPECT_EQ(seen(2), "2,3");
  EXPECT_EQ(seen(3), "3,2");
  options.visible_gpus = {{"GPU-a", "GPU-b", "7", "5"}};
  EXPECT_EQ(seen(1), "GPU-b,GPU-a");
  EXPECT_EQ(seen(3), "5,7");
  options.pp = 2;  // The ranks of a group have one GPU after the other, a stage after the other.
  EXPECT_EQ(seen(0), "GPU-a,GPU-b,7,5");
  EXPECT_EQ(seen(2), "7,GPU-a,GPU-b,5");
  options.tp = options.pp = 1;
  EXPECT_EQ(seen(1), "GPU-b");
  options.tp = 2;
  options.allow_shared_device = true;
  for (int32_t index = 0; index < 4; ++index) EXPECT_EQ(seen(index), "GPU-a");
}

TEST(ClusterPlanTest, ZeroStaysAnyFreePort) {
  const ServeOptions options{.worker_port = 0, .worker_metrics_port = 0};
  EXPECT_EQ(WorkerSpec(options, "/bin", 1, 5).ports.at("port").port, 0);
}

TEST(ClusterPlanTest, WhatThisBuildCannotDoIsRefused) {
  EXPECT_TRUE(CheckOptions({}).ok());
  EXPECT_TRUE(CheckOptions({.device = "cuda"}).ok());
  EXPECT_TRUE(CheckOptions({.device = "cuda", .tp = 2}).ok());
  EXPECT_FALSE(CheckOptions({.device = "cuda", .tp = 2, .visible_gpus = {{"1"}}}).ok());
  EXPECT_TRUE(CheckOptions(
                  {.device = "cuda", .tp = 2, .visible_gpus = {{"1"}}, .allow_shared_device = true})
                  .ok());
  EXPECT_FALSE(CheckOptions({.device = "cuda", .dp = 3, .visible_gpus = {{"0", "1"}}}).ok());
  EXPECT_TRUE(CheckOptions({.device = "cuda", .dp = 2, .visible_gpus = {{"0", "1"}}}).ok());
  EXPECT_TRUE(CheckOptions({.tp = 2, .pp = 2}).ok());
  EXPECT_TRUE(CheckOptions({.device = "cuda", .pp = 2}).ok());
  EXPECT_FALSE(CheckOptions({.device = "cuda", .pp = 2, .visible_gpus = {{"1"}}}).ok());
  EXPECT_TRUE(CheckOptions({.tp = 8, .pp = 8}).ok());
  EXPECT_FALSE(CheckOptions({.tp = 8, .pp = 9}).ok());
  EXPECT_FALSE(CheckOptions({.tp = 2, .worker_port = 65535}).ok());
  EXPECT_TRUE(CheckOptions({.tp = 1, .worker_port = 65535}).ok());
}

TEST(ClusterPlanTest, APublicAddressNeedsKeysOrAWord) {
  EXPECT_TRUE(CheckAccess({}).ok());
  for (const char* host : {"0.0.0.0", "::", "10.0.0.1", "chat.example.com"}) {
    const absl::Status status = CheckAccess({.host = host});
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << host;
    EXPECT_NE(ToString(status).find("--allow-unauthenticated"), std::string::npos);
    EXPECT_TRUE(CheckAccess({.host = host, .api_keys = {"keys"}}).ok());
    EXPECT_TRUE(CheckAccess({.host = host, .allow_unauthenticated = true}).ok());
  }
  for (const char* host : {"127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"}) {
    EXPECT_TRUE(CheckAccess({.host = host}).ok()) << host;
  }
  EXPECT_FALSE(CheckAccess({.tls = {.cert = "c", .key = {}, .ca = {}}}).ok());
}

TEST(ClusterPlanTest, EachProcessGetsItsKeysAndCertificates) {
  ServeOptions options{.model = "m"};
  options.api_keys = {"a", "b"};
  options.tls = {.cert = "c", .key = "k", .ca = {}};
  options.cluster_certs = "certs";
  const auto router = RouterSpec(options, "/bin", 1);
  EXPECT_EQ(std::count(router.argv.begin(), router.argv.end(), "--api-keys"), 2);
  EXPECT_TRUE(HasPair(router, "--tls-cert", "c"));
  EXPECT_TRUE(HasPair(router, "--tls-key", "k"));
  EXPECT_TRUE(HasPair(router, "--cluster-cert", "certs/router.crt"));
  EXPECT_TRUE(HasPair(WorkerSpec(options, "/bin", 1, 0), "--cluster-key", "certs/worker.key"));
  EXPECT_TRUE(HasPair(SchedulerSpec(options, "/bin"), "--cluster-ca", "certs/ca.crt"));
  const auto plain = RouterSpec({.model = "m"}, "/bin", 1).argv;
  EXPECT_EQ(std::count(plain.begin(), plain.end(), "--allow-unauthenticated"), 0);
}

}  // namespace
}  // namespace fathom::client
