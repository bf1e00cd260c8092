// router/request_lines.h: a line of the log for each request that ended (--log-requests), and the
// next sink of the reports. Thread: any.
#pragma once

#include <string>

#include "router/sessions/sessions.h"

namespace fathom::router {

// "ended LENGTH after 1.204 s: 34 prompt tokens, 0 of them cached, 200 generated; first token after
// 0.031 s; queue 0.004 s, prefill 0.020 s, decode 1.171 s, transport 0.009 s". Times that are 0,
// and what is not known, are left out.
std::string RequestLine(const RequestReport& report);

class RequestLines final : public ReportSink {
 public:
  // `next` may be null. REQUIRES: it outlives this object.
  explicit RequestLines(ReportSink* next) : next_(next) {}

  void Ended(const RequestReport& report) override;

 private:
  ReportSink* const next_;
};

}  // namespace fathom::router
