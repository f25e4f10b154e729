/* SPDX-License-Identifier: GPL-2.0 */
/* Camera Module 2, as the kernel's binding sony,imx219 wants it. One pin of the board switches its
 * three supplies. */
#define SENSOR_CLOCK_HZ 24000000
#define SENSOR_NODE                                                    \
	camera@10 {                                                    \
		compatible = "sony,imx219";                            \
		reg = <0x10>;                                          \
		clocks = <&camera_clock>;                              \
		VANA-supply = <&camera_supply>;                        \
		VDIG-supply = <&camera_supply>;                        \
		VDDL-supply = <&camera_supply>;                        \
		rotation = <180>;                                      \
		orientation = <2>;                                     \
		port {                                                 \
			camera_out: endpoint {                         \
				remote-endpoint = <&receiver_in>;      \
				data-lanes = <1 2>;                    \
				clock-noncontinuous;                   \
				link-frequencies = /bits/ 64 <456000000>; \
			};                                             \
		};                                                     \
	}
