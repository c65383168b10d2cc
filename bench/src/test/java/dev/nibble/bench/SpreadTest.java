// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

class SpreadTest {

  @Test
  void theMedianIsTheMiddleOrBetweenTheTwoInTheMiddle() {
    var spread = new Spread();
    spread.add(9);
    assertThat(spread.median()).isEqualTo(9);
    spread.add(1);
    assertThat(spread.median()).isEqualTo(5);
    spread.add(2);
    assertThat(spread.median()).isEqualTo(2);
    assertThat(spread).hasToString("2.0 (1.0 to 9.0)");
  }
}
