// The gRPC services and the table of access: a method without a row is open to nobody, and the
// guard refuses a call before its message is read.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>

#include <filesystem>

#include "inference.grpc.pb.h"
#include "router/frontend/grpc/service.h"
#include "tests/router/api_world.h"
#include "tests/router/grpc_status.h"

namespace fathom::router {
namespace {

class ServiceAccessTest : public ::testing::Test {
 protected:
  void Start(const AccessControl* access) {
    service_ = std::make_unique<RouterService>(world_.api.get(), access);
    auto listener = Listener::Bind("127.0.0.1", 0, "--grpc-port");
    ASSERT_TRUE(listener.ok()) << ToString(listener.status());
    const int port = listener->port();
    ASSERT_TRUE(service_->Start(*std::move(listener), {.name = "test"}).ok());
    channel_ =
        grpc::CreateChannel(fmt::format("127.0.0.1:{}", port), grpc::InsecureChannelCredentials());
  }

  RealClock clock_;
  FakeLink link_;
  SessionObserver counts_;
  ApiObserver observer_;
  Sessions sessions_{{}, &clock_, &link_, &TinyTokenizer(), &counts_};
  ApiWorld world_{&sessions_, &clock_, &observer_};
  std::unique_ptr<RouterService> service_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(ServiceAccessTest, EveryMethodHasARow) {
  Start(nullptr);
  const std::vector<std::string> methods = service_->methods();
  EXPECT_GT(methods.size(), 10U);
  for (const std::string& method : methods) EXPECT_NE(AccessOf(method), Access::kNobody) << method;
}

TEST_F(ServiceAccessTest, ACallWithoutAKeyEndsBeforeItsMessage) {
  const std::string file = std::filesystem::temp_directory_path() / "fathom-no-such-keys";
  const AccessControl access({file});  // Not loaded: it has no key.
  Start(&access);
  const auto stub = v1::Inference::NewStub(channel_);
  for (const bool has_key : {false, true}) {
    grpc::ClientContext context;
    if (has_key) context.AddMetadata("authorization", "Bearer " + NewApiKey());
    v1::Limits response;
    const absl::Status status =
        FromGrpcStatus(stub->GetLimits(&context, v1::GetLimitsRequest(), &response));
    EXPECT_TRUE(absl::IsUnauthenticated(status)) << ToString(status);
    EXPECT_EQ(DetailOf(status)->reason, has_key ? "INVALID_API_KEY" : "MISSING_API_KEY");
  }
}

}  // namespace
}  // namespace fathom::router
