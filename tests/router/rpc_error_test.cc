// Converts a Status and its details to gRPC and back.
#include "router/frontend/grpc/rpc_error.h"

#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/router/grpc_status.h"

namespace fathom::router {
namespace {

TEST(RpcError, EveryCodeGoesRoundWithItsDetail) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK).ok());
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status =
        WithDetail(MakeStatus(static_cast<absl::StatusCode>(code), "what, limit, way out"),
                   {"A_REASON", "sampling.top_p", 1234});
    const grpc::Status sent = ToGrpcStatus(status);
    EXPECT_EQ(static_cast<int>(sent.error_code()), code);
    const absl::Status back = FromGrpcStatus(sent);
    EXPECT_EQ(back.code(), status.code());
    EXPECT_EQ(Message(back), Message(status));
    const auto detail = DetailOf(back);
    ASSERT_TRUE(detail.has_value());
    EXPECT_EQ(detail->reason, "A_REASON");
    EXPECT_EQ(detail->field, "sampling.top_p");
    EXPECT_EQ(detail->retry_after_ms, 1234);
  }
}

TEST(RpcError, ClientsFindTheStandardDetails) {
  const grpc::Status sent = ToGrpcStatus(WithDetail(Exhausted("full"), {"QUEUE_FULL", "", 500}));
  google::rpc::Status rpc;
  ASSERT_TRUE(rpc.ParseFromString(sent.error_details()));
  ASSERT_EQ(rpc.details_size(), 2);  // There is no BadRequest, because no field is named.
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(rpc.details(0).UnpackTo(&info));
  EXPECT_EQ(info.domain(), "fathom");
  EXPECT_EQ(info.reason(), "QUEUE_FULL");
}

// If a client could not parse the details, it would have no reason and no field.
TEST(RpcError, ATextThatIsNotUtf8KeepsItsDetails) {
  const absl::Status back = FromGrpcStatus(
      ToGrpcStatus(WithDetail(Invalid("half a letter: \xC3"), {"A_REASON", "f", 0})));
  ASSERT_TRUE(DetailOf(back).has_value());
  EXPECT_EQ(DetailOf(back)->reason, "A_REASON");
  EXPECT_EQ(Message(back), "half a letter: \uFFFD");
}

TEST(RpcError, WithoutDetailTheCodeIsTheReason) {
  EXPECT_EQ(DetailOf(FromGrpcStatus(ToGrpcStatus(Internal("bug"))))->reason, "INTERNAL");
}

}  // namespace
}  // namespace fathom::router
