#include "worker/cluster/grpc_step_channel.h"

#include <grpcpp/grpcpp.h>

#include <mutex>
#include <utility>

#include "cluster.grpc.pb.h"
#include "cluster/wire.h"

namespace fathom::worker {
namespace {

namespace wire = cluster::v1;

class GrpcStepChannel final : public StepChannel {
 public:
  GrpcStepChannel(const std::string& address, const ChannelOptions& channel,
                  const std::string& process_id, Epoch& epoch)
      : epoch_(epoch),
        stub_(wire::Scheduler::NewStub(MakeChannel(address, channel))),
        stream_(stub_->Steps(&context_)),
        cancel_(epoch.OnAbort([this] { context_.TryCancel(); })) {
    const GroupSeat& seat = epoch.seat();
    ToWire(StepsHello{seat.term, seat.epoch, seat.rank, process_id}, &up_);
    stream_->Write(up_);  // If this fails, the first Read fails.
  }

  ~GrpcStepChannel() override {
    epoch_.Forget(cancel_);
    context_.TryCancel();
    if (!finished_) stream_->Finish();
  }

  absl::StatusOr<StepPlan> Read() override {
    if (!stream_->Read(&down_)) return Ended();
    return FromWire(std::move(down_));
  }

  absl::Status Write(const StepResult& result) override {
    ToWire(result, &up_);
    return stream_->Write(up_) ? absl::OkStatus() : Ended();
  }

 private:
  absl::Status Ended() {
    const std::lock_guard lock(mutex_);  // The reading and the writing thread may both see the end.
    if (finished_) return Unavailable("the leader's steps have ended");
    finished_ = true;
    const grpc::Status status = stream_->Finish();
    return Unavailable("the leader ended the steps: {} {}", static_cast<int>(status.error_code()),
                       status.error_message());
  }

  Epoch& epoch_;
  grpc::ClientContext context_;
  const std::unique_ptr<wire::Scheduler::Stub> stub_;
  const std::unique_ptr<grpc::ClientReaderWriter<wire::StepsUp, wire::StepsDown>> stream_;
  const int cancel_;
  std::mutex mutex_;
  bool finished_ = false;
  wire::StepsUp up_;
  wire::StepsDown down_;
};

}  // namespace

std::unique_ptr<StepChannel> DialSteps(const std::string& address, const ChannelOptions& channel,
                                       const std::string& process_id, Epoch& epoch) {
  return std::make_unique<GrpcStepChannel>(address, channel, process_id, epoch);
}

}  // namespace fathom::worker
