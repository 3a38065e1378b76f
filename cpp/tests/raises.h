// Expectations about errors, without GoogleMock, which distributions package apart.
#pragma once

#include <string>

#include <gtest/gtest.h>

/// Expects `statement` to throw `Kind` with a message that contains `text`.
#define EXPECT_RAISES(statement, Kind, text)                                       \
  do {                                                                             \
    try {                                                                          \
      statement;                                                                   \
      ADD_FAILURE() << "nothing was thrown by " #statement;                        \
    } catch (const Kind& raised_error) {                                           \
      EXPECT_NE(std::string(raised_error.what()).find(text), std::string::npos)    \
          << "the message is: " << raised_error.what() << "\nwithout: " << (text); \
    }                                                                              \
  } while (false)
