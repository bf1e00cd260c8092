#include "common/status.h"

#include <gtest/gtest.h>

namespace fathom {
namespace {

TEST(Status, CarriesMessageAndDetail) {
  absl::Status status = Invalid("temperature {} is above 2", 3.5);
  EXPECT_EQ(Message(status), "temperature 3.5 is above 2");
  EXPECT_EQ(DetailOf(status), std::nullopt);
  status = WithDetail(status, {"OUT_OF_RANGE", "sampling.temperature", 0});
  const auto detail = DetailOf(status);
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->reason, "OUT_OF_RANGE");
  EXPECT_EQ(detail->field, "sampling.temperature");
  EXPECT_EQ(detail->retry_after_ms, 0);
  EXPECT_EQ(ToString(status), "INVALID_ARGUMENT: temperature 3.5 is above 2");
}

TEST(Status, AnnotateKeepsCodeAndDetail) {
  const absl::Status status =
      Annotate(WithDetail(Exhausted("queue full"), {"QUEUE_FULL", "", 250}), "request r1");
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Message(status), "request r1: queue full");
  EXPECT_EQ(DetailOf(status)->retry_after_ms, 250);
  EXPECT_TRUE(Annotate(absl::OkStatus(), "x").ok());
}

absl::StatusOr<int> Half(int x) {
  if (x % 2 != 0) return Invalid("{} is odd", x);
  return x / 2;
}
absl::StatusOr<int> Quarter(int x) {
  FATHOM_ASSIGN_OR_RETURN(const int half, Half(x));
  return Half(half);
}

TEST(Status, AssignOrReturn) {
  EXPECT_EQ(*Quarter(8), 2);
  EXPECT_EQ(Message(Quarter(6).status()), "3 is odd");
}

}  // namespace
}  // namespace fathom
