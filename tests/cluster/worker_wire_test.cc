// A recorded step is converted to its message and back. Every field has a different value, so that
// swapped fields are found.
#include "cluster/worker_wire.h"

#include <gtest/gtest.h>

#include "worker.pb.h"

namespace fathom {
namespace {

TEST(WorkerWire, AStepComesBackAsItWas) {
  const StepTrace step{{1}, {2}, {3}, 4, 5, 6, 7, true, 9, 10, 11, 12, 13, 14, 15, 16};
  worker::v1::StepTrace sent, received;
  ToWire(step, &sent);
  ASSERT_TRUE(received.ParseFromString(sent.SerializeAsString()));
  EXPECT_EQ(FromWire(received), step);
  EXPECT_EQ(FromWire(worker::v1::StepTrace()), StepTrace());
}

}  // namespace
}  // namespace fathom
