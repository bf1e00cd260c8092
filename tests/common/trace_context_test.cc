#include "common/trace_context.h"

#include <gtest/gtest.h>

#include <string>

namespace fathom {
namespace {

const std::string kTrace = "4bf92f3577b34da6a3ce929d0e0e4736";
const std::string kSpan = "00f067aa0ba902b7";

TEST(TraceContext, IsThatOfTheHeader) {
  const std::string header = "00-" + kTrace + "-" + kSpan + "-01";
  EXPECT_EQ(ParseTraceparent(header), (TraceContext{kTrace, kSpan, true}));
  EXPECT_EQ(FormatTraceparent(ParseTraceparent(header)), header);
  const std::string not_sampled = "00-" + kTrace + "-" + kSpan + "-00";
  EXPECT_EQ(ParseTraceparent(not_sampled), (TraceContext{kTrace, kSpan, false}));
  EXPECT_EQ(FormatTraceparent(ParseTraceparent(not_sampled)), not_sampled);
  // A later version may have more flags and fields.
  EXPECT_TRUE(ParseTraceparent("01-" + kTrace + "-" + kSpan + "-03-more").sampled);
}

TEST(TraceContext, AMalformedHeaderIsNone) {
  for (const std::string& other :
       {std::string(), kTrace, "00-" + kTrace + "-" + kSpan, "00-" + kTrace + "\n" + kSpan + "-01",
        "00-" + std::string(32, 'X') + "-" + kSpan + "-01",
        "00-" + std::string(32, '0') + "-" + kSpan + "-01",
        "00-" + kTrace + "-" + std::string(16, '0') + "-01", "ff-" + kTrace + "-" + kSpan + "-01",
        "00-" + kTrace + "-" + kSpan + "-01-more", "01-" + kTrace + "-" + kSpan + "-01more"}) {
    EXPECT_EQ(ParseTraceparent(other), TraceContext{}) << other;
  }
  EXPECT_EQ(FormatTraceparent({}), "");
}

}  // namespace
}  // namespace fathom
